"""A run that fails of an error of users keeps what it has done, and says the error's text, wherever it comes from."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from agents import Agent, GuardrailFunctionOutput, Model, OutputGuardrail, UserError, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.usage import Usage
from mcp import MCPError

from timestep import Session, register_agents, run_agent_workflow
from timestep.client.runs import get_run
from timestep.client.serializer import frames_of
from timestep.durable.process.engine import engine as launched

SPENT = Usage(requests=1, input_tokens=10, output_tokens=2, total_tokens=12)


class Private(Exception):
    """Makes its text of what is not stored."""

    def __init__(self, *, reason: object) -> None:
        self._reason = reason

    def __str__(self) -> str:
        return f"because of {self._reason.name}"  # type: ignore[attr-defined]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")


class Reason:
    name = "rain"


ERRORS = {
    "MCPError": (lambda: MCPError(-32000, "closed"), "closed"),
    "Private": (lambda: Private(reason=Reason()), "because of rain"),
    "Unprintable": (lambda: Unprintable("x"), "'x' (its text raises KeyError)"),
}


@function_tool
def look() -> str:
    return "seen"


def clerk(*end: Any, **options: Any) -> Agent[Any]:
    first = ModelStep(output=[function_call("look", {}, call_id="c1")], usage=SPENT)
    given: dict[str, Any] = {"tools": [look], **options}
    return Agent(name="clerk", model=ScriptedModel([first, *end]), **given)


def last() -> ModelStep:
    return ModelStep(output=[assistant_message("done")], usage=SPENT)


def place_of(kind: str, make: Any) -> Agent[Any]:
    if kind == "model":
        return clerk(ModelStep(error=make()))
    if kind == "tool":

        def fail() -> str:
            raise make()

        call = ModelStep(output=[function_call("fail", {}, call_id="c2")], usage=SPENT)
        return clerk(call, tools=[look, function_tool(fail, failure_error_function=None)])

    def guard(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        raise make()

    return clerk(last(), output_guardrails=[OutputGuardrail(guardrail_function=guard)])


@pytest.mark.parametrize(
    ("kind", "error"),  # of a model and a guardrail the SDK itself makes the text, and fails of one that has none
    [
        ("tool", "Unprintable"),
        *((kind, error) for kind in ("model", "tool", "guardrail") for error in list(ERRORS)[:2]),
    ],
)
async def test_an_error_of_users_costs_nothing_of_the_closing(engine: Any, new_id: str, kind: str, error: str) -> None:
    make, text = ERRORS[error]

    with pytest.raises(Exception) as caught:  # noqa: PT011 - of the classes below
        await run_agent_workflow(place_of(kind, make), "Look", workflow_id=new_id, session=f"s-{new_id}")

    expected = UserError if kind == "tool" else type(make())
    assert isinstance(caught.value, expected)
    run = get_run(launched().connector, new_id)
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["message"].endswith(text)
    assert engine.value("select count(*) from timestep.tool_calls where run_id = %s", new_id) == (
        2 if kind == "tool" else 1
    )
    assert engine.value("select sum(input_tokens) from timestep.usage where run_id = %s", new_id) >= 10
    kinds = [item.get("type", "message") for item in await Session(f"s-{new_id}").get_items()]
    assert kinds[:3] == ["message", "function_call", "function_call_output"]
    with pytest.raises(expected, match=re.escape(text)):
        await run_agent_workflow("clerk", "Look", workflow_id=new_id, session=f"s-{new_id}")


def deep_down() -> None:
    raise ValueError("deep down")


class Failing(Model):
    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        deep_down()

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kind", ["model", "tool", "guardrail"])
async def test_a_failed_run_keeps_and_logs_where_it_failed(
    engine: Any, new_id: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Exception:
        deep_down()
        raise AssertionError

    agent = place_of(kind, make) if kind != "model" else Agent(name="clerk", model=Failing())
    with caplog.at_level(logging.ERROR, "timestep"), pytest.raises(Exception):  # noqa: B017, PT011
        await run_agent_workflow(agent, "Look", workflow_id=new_id)

    error = get_run(launched().connector, new_id).error
    assert error is not None
    line = deep_down.__code__.co_firstlineno + 1
    frames = frames_of(error)
    assert frames[-1] == f'File "{__file__}", line {line}, in deep_down'
    assert not [frame for frame in frames if "/timestep/durable/" in frame or "/agents/" in frame]
    assert "deep_down" not in json.dumps(error).replace('deep_down"', "")  # no code, no values
    failed = [record.getMessage() for record in caplog.records if f"Run {new_id} failed" in record.getMessage()]
    assert len(failed) == 1
    assert failed[0].endswith(frames[-1])


class Foreign:
    """A session of the program's own that fails."""

    session_id = "foreign"
    session_settings = None

    def __init__(self, *, fails_at: str, error: BaseException) -> None:
        self.fails_at, self.error = fails_at, error

    async def get_items(self, limit: int | None = None) -> list[Any]:
        if self.fails_at == "read":
            raise self.error
        return []

    async def add_items(self, items: list[Any]) -> None:
        raise self.error

    async def pop_item(self) -> None:
        return None

    async def clear_session(self) -> None:
        return None


@pytest.mark.parametrize("error", [*ERRORS, "SystemExit"])
@pytest.mark.parametrize("fails_at", ["read", "write"])
async def test_a_session_of_the_program_that_fails_costs_nothing_else(
    engine: Any, new_id: str, fails_at: str, error: str
) -> None:
    make, text = ERRORS.get(error, (lambda: SystemExit("left"), "SystemExit: left"))
    agent = clerk(last())
    register_agents(agent, session_factory=lambda _: Foreign(fails_at=fails_at, error=make()))

    with pytest.raises(Exception) as caught:  # noqa: PT011
        await run_agent_workflow(agent, "Look", workflow_id=new_id, session="foreign")

    kind = type(make()) if error != "SystemExit" else RuntimeError
    assert isinstance(caught.value, kind)
    run = get_run(launched().connector, new_id)
    assert (run.status, run.reason, run.error and run.error["message"]) == ("failed", "exception", text)
    done = 0 if fails_at == "read" else 1
    assert engine.value("select count(*) from timestep.tool_calls where run_id = %s", new_id) == done
    assert engine.value("select count(*) from timestep.usage where run_id = %s", new_id) == 2 * done
    assert engine.value("select count(*) from timestep.session_items where session_id = 'foreign'") == 0
