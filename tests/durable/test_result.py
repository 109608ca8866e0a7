"""Errors of a run: their own types, live, recorded and replayed; logged once."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import openai
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelBehaviorError,
    OutputGuardrailTripwireTriggered,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
    UserError,
    function_tool,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from timestep import run_agent, run_agent_workflow


class OutOfStockError(Exception):
    def __init__(self, article: str, left: int) -> None:
        super().__init__(f"{left} of {article} left")
        self.article, self.left = article, left


@function_tool
def look() -> str:
    return "seen"


@function_tool(failure_error_function=None)
def order() -> str:
    raise OutOfStockError("pens", 3)


@function_tool(failure_error_function=None)
def read_file() -> str:
    raise FileNotFoundError(2, "No such file", "/orders")


def call(name: str) -> list[Any]:
    return [function_call(name, {}, call_id="c1")]


def endless() -> Agent[Any]:
    steps = [[function_call("look", {}, call_id=f"c{number}")] for number in range(9)]
    return Agent(name="endless", tools=[look], model=ScriptedModel(steps))


def unknown_tool() -> Agent[Any]:
    return Agent(name="unknown", model=ScriptedModel([call("nowhere")]))


def bad_output() -> Agent[Any]:
    return Agent(name="bad", output_type=int, model=ScriptedModel([[assistant_message("no")]]))


def user_error() -> Agent[Any]:
    return Agent(name="user", model=ScriptedModel([ModelStep.raise_error(UserError("You may not."))]))


def refused_status() -> Agent[Any]:
    response = httpx.Response(401, request=httpx.Request("POST", "http://provider.example/v1"))
    error = openai.AuthenticationError("Wrong key", response=response, body={"code": "invalid_api_key"})
    return Agent(name="refused", model=ScriptedModel([ModelStep.raise_error(error)]))


def own_error() -> Agent[Any]:
    return Agent(name="shop", tools=[order], model=ScriptedModel([call("order")]))


def builtin_error() -> Agent[Any]:
    return Agent(name="files", tools=[read_file], model=ScriptedModel([call("read_file")]))


def input_tripwire() -> Agent[Any]:
    @input_guardrail(run_in_parallel=False)
    async def no_homework(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info={"why": "homework"}, tripwire_triggered=True)

    return Agent(name="tutor", input_guardrails=[no_homework], model=ScriptedModel([[assistant_message("x")]]))


def output_tripwire() -> Agent[Any]:
    @output_guardrail
    async def no_numbers(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info={"why": "numbers"}, tripwire_triggered=True)

    return Agent(name="poet", output_guardrails=[no_numbers], model=ScriptedModel([[assistant_message("1")]]))


def tool_input_tripwire() -> Agent[Any]:
    @tool_input_guardrail
    def closed(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.raise_exception({"why": "closed"})

    @function_tool(tool_input_guardrails=[closed])
    def buy() -> str:
        return "bought"

    return Agent(name="closed", tools=[buy], model=ScriptedModel([call("buy")]))


def tool_output_tripwire() -> Agent[Any]:
    @tool_output_guardrail
    def secret(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.raise_exception({"why": "secret"})

    @function_tool(tool_output_guardrails=[secret])
    def read() -> str:
        return "secret"

    return Agent(name="secret", tools=[read], model=ScriptedModel([call("read")]))


KINDS = [
    (endless, MaxTurnsExceeded, "Max turns (4) exceeded"),
    (unknown_tool, ModelBehaviorError, "nowhere"),
    (bad_output, ModelBehaviorError, "Invalid JSON"),
    (user_error, UserError, "You may not."),
    (refused_status, openai.AuthenticationError, "Wrong key"),
    (own_error, UserError, "3 of pens left"),
    (builtin_error, UserError, "No such file"),
    (input_tripwire, InputGuardrailTripwireTriggered, "Guardrail"),
    (output_tripwire, OutputGuardrailTripwireTriggered, "Guardrail"),
    (tool_input_tripwire, ToolInputGuardrailTripwireTriggered, "Tool input guardrail"),
    (tool_output_tripwire, ToolOutputGuardrailTripwireTriggered, "Tool output guardrail"),
]


@pytest.mark.parametrize(("make", "kind", "text"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
async def test_an_error_has_its_own_type_live_recorded_and_replayed(
    engine: Any, make: Any, kind: type[Exception], text: str, new_id: str
) -> None:
    agent, errors = make(), []
    for _ in range(2):
        with pytest.raises(kind) as found:
            await run_agent_workflow(agent, "Go", workflow_id=new_id, max_turns=4)
        errors.append(found.value)
    calls = len(agent.model.calls)
    _, replayed = await engine.replay(new_id)
    errors.append(replayed)

    assert len({type(error) for error in errors}) == 1
    assert len({str(error) for error in errors}) == 1
    assert text in str(errors[0])
    assert len(agent.model.calls) == calls
    row = engine.run(new_id)
    assert row["status"] == "failed"
    assert row["error"]["type"] == type(errors[0]).__name__
    assert row["output"] is None


async def test_an_error_of_a_tool_is_the_cause_with_its_own_type_and_fields(engine: Any, new_id: str) -> None:
    for _ in range(2):
        with pytest.raises(UserError) as found:
            await run_agent_workflow(own_error(), "Go", workflow_id=new_id)
        cause = found.value.__cause__
        assert isinstance(cause, OutOfStockError)
        assert (cause.article, cause.left, str(cause)) == ("pens", 3, "3 of pens left")


async def test_a_file_error_of_a_tool_keeps_its_file(engine: Any, new_id: str) -> None:
    for _ in range(2):
        with pytest.raises(UserError) as found:
            await run_agent_workflow(builtin_error(), "Go", workflow_id=new_id)
        cause = found.value.__cause__
        assert isinstance(cause, FileNotFoundError)
        assert cause.filename == "/orders"


async def test_status_and_body_of_a_provider_s_refusal_survive(engine: Any, new_id: str) -> None:
    for _ in range(2):
        with pytest.raises(openai.APIStatusError) as found:
            await run_agent_workflow(refused_status(), "Go", workflow_id=new_id)
        assert found.value.status_code == 401
        assert found.value.body == {"code": "invalid_api_key"}


async def test_the_output_of_a_tripwire_can_be_read_live(engine: Any, new_id: str) -> None:
    with pytest.raises(InputGuardrailTripwireTriggered) as found:
        await run_agent_workflow(input_tripwire(), "Go", workflow_id=new_id)

    assert found.value.guardrail_result.output.output_info == {"why": "homework"}


async def test_an_error_of_the_agents_sdk_is_logged_once_with_agent_run_and_turn(
    engine: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], new_id: str
) -> None:
    with caplog.at_level(logging.DEBUG, "timestep"), pytest.raises(MaxTurnsExceeded):
        await run_agent_workflow(endless(), "Go", workflow_id=new_id, max_turns=2)
    with caplog.at_level(logging.DEBUG, "timestep"), pytest.raises(MaxTurnsExceeded):
        await run_agent_workflow(endless(), "Go", workflow_id=new_id, max_turns=2)

    [record] = [each for each in caplog.records if each.name == "timestep" and each.levelno >= logging.ERROR]
    assert (
        record.getMessage() == f"Run {new_id} failed in agent endless, turn 2: MaxTurnsExceeded: Max turns (2) exceeded"
    )
    assert "MaxTurnsExceeded" not in "".join(capsys.readouterr())


async def test_a_plain_run_logs_once_too_and_raises_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    error = UserError("You may not.")
    agent = Agent(name="user", model=ScriptedModel([ModelStep.raise_error(error)]))

    with caplog.at_level(logging.DEBUG, "timestep"), pytest.raises(UserError) as found:
        await run_agent(agent, "Go")

    assert found.value is error
    assert [each.getMessage() for each in caplog.records if each.name == "timestep"] == [
        "Agent user: UserError: You may not."
    ]


async def test_a_failed_run_stores_its_finished_steps_and_no_half_turn(engine: Any, new_id: str) -> None:
    agent = Agent(
        name="shop",
        tools=[look, order],
        model=ScriptedModel([call("look"), [function_call("order", {}, call_id="c2")]]),
    )

    with pytest.raises(Exception, match="pens"):
        await run_agent_workflow(agent, "Go", session=f"s-{new_id}", workflow_id=new_id)

    [items] = engine.query(
        "select json_agg(item order by position) as items from timestep.session_items where session_id = %s",
        f"s-{new_id}",
    )
    kinds = [item.get("type", item.get("role")) for item in items["items"]]
    assert kinds[:3] == ["user", "function_call", "function_call_output"]
    calls = [item["call_id"] for item in items["items"] if item.get("type") == "function_call"]
    answers = [item["call_id"] for item in items["items"] if item.get("type") == "function_call_output"]
    assert calls == answers
    rows = engine.query("select tool, error from timestep.tool_calls where run_id = %s order by call_key", new_id)
    assert [row["tool"] for row in rows] == ["look", "order"]
    assert rows[1]["error"]["type"] == "OutOfStockError"
    assert engine.value("select count(*) from timestep.usage where run_id = %s", new_id) == 2
