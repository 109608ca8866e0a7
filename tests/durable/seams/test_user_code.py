"""Code of users that raises what is no Exception is a failing tool, guardrail or model; the next run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    Model,
    ModelResponse,
    ModelSettings,
    RunContextWrapper,
    UserError,
    function_tool,
)
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import run_agent_workflow, tool_policy
from timestep.client.runs import cancel_run
from timestep.durable.process.engine import engine as launched
from timestep.durable.seams.user_code import EngineSignal, contained
from timestep.errors import RunCancelledError


class Own(BaseException):
    """No Exception, of the user's own."""


RAISED: dict[str, BaseException] = {
    "SystemExit: 2": SystemExit(2),
    "SystemExit": SystemExit(),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "BaseException: base": BaseException("base"),
    "CancelledError: by nobody": asyncio.CancelledError("by nobody"),
    "BaseExceptionGroup: two (1 sub-exception)": BaseExceptionGroup("two", [SystemExit(1)]),
    "Own: mine": Own("mine"),
}
IN_MAIN_THREAD = {text: error for text, error in RAISED.items() if text != "KeyboardInterrupt"}


def raising(error: BaseException, name: str, *, is_sync: bool = False, **options: Any) -> Any:
    def in_thread() -> str:
        raise error

    async def in_loop() -> str:
        await asyncio.sleep(0)
        raise error

    return function_tool(in_thread if is_sync else in_loop, name_override=name, **options)


def asks(tools: list[Any], *, name: str = "host", **options: Any) -> Agent[Any]:
    calls = [function_call(tool.name, {}, call_id=f"c{number}") for number, tool in enumerate(tools)]
    return Agent(name=name, tools=tools, model=ScriptedModel([calls, [assistant_message("done")]]), **options)


def told(agent: Agent[Any]) -> list[str]:
    model: Any = agent.model
    return [item["output"] for item in model.last_call.input if item.get("type") == "function_call_output"]


@pytest.mark.parametrize("kind", ["sync", "async", "async with a time limit"])
async def test_a_tool_that_raises_no_exception_is_a_failing_tool(engine: Any, new_id: str, kind: str) -> None:
    raised = RAISED if kind == "sync" else IN_MAIN_THREAD
    options = {"timeout": 30.0} if kind == "async with a time limit" else {}
    tools = [
        raising(error, f"tool_{number}", is_sync=kind == "sync", **options)
        for number, error in enumerate(raised.values())
    ]
    agent = asks(tools)

    result = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    other = asks([raising(ValueError("as any"), "other")], name="other")
    again = await run_agent_workflow(other, "Next", workflow_id=f"{new_id}-2")

    assert result.final_output == again.final_output == "done"
    assert told(agent) == told(other) * len(raised)
    _, replayed = await engine.replay(new_id)
    assert replayed.final_output == "done"


async def test_a_bare_next_in_a_sync_tool_does_not_hang(engine: Any, new_id: str) -> None:
    def first() -> str:
        return next(iter([]))

    agent = asks([function_tool(first, failure_error_function=lambda context, error: str(error))])
    async with asyncio.timeout(30):
        await run_agent_workflow(agent, "Go", workflow_id=new_id)
    assert told(agent) == ["StopIteration"]


async def test_the_failure_handler_and_the_retries_of_a_tool_hold(engine: Any, new_id: str) -> None:
    starts: list[int] = []

    def handle(context: RunContextWrapper[Any], error: Exception) -> str:
        return f"handled {error} of {type(error.__cause__).__name__}"

    async def leave() -> str:
        starts.append(1)
        raise SystemExit(3)

    agent = asks([tool_policy(function_tool(leave, failure_error_function=handle), retries=1)])
    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert told(agent) == ["handled SystemExit: 3 of SystemExit"]
    assert len(starts) == 2


async def test_without_a_failure_handler_the_run_fails_and_keeps_its_rows(engine: Any, new_id: str) -> None:
    agent = asks([raising(SystemExit("gone"), "leave", failure_error_function=None)])
    with pytest.raises(UserError, match="Error running tool leave: SystemExit: gone"):
        await run_agent_workflow(agent, "Go", workflow_id=new_id)
    assert engine.status(new_id) == "failed"
    assert engine.value("select error->>'message' from timestep.tool_calls where run_id = %s", new_id) == (
        "SystemExit: gone"
    )


async def test_tools_of_a_sub_agent_are_contained(engine: Any, new_id: str) -> None:
    inner = asks([raising(SystemExit(1), "leave")])
    outer = Agent(
        name="outer",
        tools=[inner.as_tool("ask", "Ask.")],
        model=ScriptedModel([[function_call("ask", {"input": "x"}, call_id="c")], [assistant_message("over")]]),
    )
    result = await run_agent_workflow(outer, "Go", workflow_id=new_id)
    assert result.final_output == "over"
    assert told(inner) == ["An error occurred while running the tool. Please try again."]


class Leaving(Model):
    """A model that ends the process."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise SystemExit("the model")

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise SystemExit("the model")
        yield


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("timeout", [None, 30])
async def test_a_model_that_raises_no_exception_fails_its_run(
    engine: Any, new_id: str, stream: bool, timeout: float | None
) -> None:
    agent = Agent[Any](name="host", model=Leaving(), model_settings=ModelSettings(timeout=timeout))
    with pytest.raises(RuntimeError, match="SystemExit: the model"):
        await run_agent_workflow(agent, "Go", workflow_id=new_id, stream=stream)
    assert engine.status(new_id) == "failed"


async def test_a_guardrail_that_raises_no_exception_fails_its_run(engine: Any, new_id: str) -> None:
    def guard(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        raise SystemExit("the guardrail")

    agent = asks([], input_guardrails=[InputGuardrail(guardrail_function=guard, run_in_parallel=False)])
    with pytest.raises(RuntimeError, match="SystemExit: the guardrail"):
        await run_agent_workflow(agent, "Go", workflow_id=new_id)
    assert engine.status(new_id) == "failed"


async def test_a_cancellation_of_the_run_passes_through(engine: Any, new_id: str) -> None:
    seen: list[type[BaseException]] = []
    begun, over = asyncio.Event(), asyncio.Event()

    @function_tool
    async def wait() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            seen.append(type(error))
            over.set()
            raise
        return "never"

    run = asyncio.ensure_future(run_agent_workflow(asks([wait]), "Go", workflow_id=new_id))
    await begun.wait()
    await asyncio.to_thread(cancel_run, launched().connector, new_id)
    with pytest.raises(RunCancelledError):
        await run
    async with asyncio.timeout(30):
        await over.wait()
    assert seen == [asyncio.CancelledError]
    assert engine.status(new_id) == "cancelled"


async def test_what_is_meant_passes_through() -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(contained(wait))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def signal(error: BaseException) -> None:
        raise error

    for error in (EngineSignal(), KeyboardInterrupt(), BaseExceptionGroup("", [EngineSignal()]), ValueError("x")):
        with pytest.raises(type(error)) as caught:
            await contained(lambda error=error: signal(error))
        assert caught.value is error


def test_the_coroutine_of_a_loop_that_has_ended_may_be_closed() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    code = contained(wait)
    task = loop.create_task(code)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    code.close()  # raises where its end is taken for a failure
    with pytest.raises(RuntimeError, match="reuse"):
        code.send(None)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
