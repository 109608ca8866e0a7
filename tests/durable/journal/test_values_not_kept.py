"""What would not come back: the call is done and its tool has run, and the model is told just that."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
from agents import Agent, AgentOutputSchema, GuardrailFunctionOutput, InputGuardrail, function_tool
from agents.agent import ToolsToFinalOutputResult
from agents.testing import assistant_message, function_call
from pydantic import BaseModel, Field, SecretStr, field_validator
from turns import Turns
from zoo import describe

from timestep import register_agents, run_agent_workflow
from timestep.durable.start import read_result


@dataclasses.dataclass
class Held:
    name: str
    lock: Any


class Wordless(BaseModel):
    x: int

    def __str__(self) -> str:
        raise ValueError("no words")


class Token(BaseModel):
    token: SecretStr


class Bill(BaseModel):
    cents: int = Field(alias="dollars")
    ratio: float = 0.0

    @field_validator("cents", mode="before")
    @classmethod
    def of_dollars(cls, value: Any) -> Any:
        return value * 100


def circle() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


def told(result: Any) -> Any:
    return next(item.raw_item["output"] for item in result.new_items if item.type == "tool_call_output_item")


@pytest.mark.parametrize("handler", [None, lambda context, error: "It failed, try again."], ids=["none", "own"])
@pytest.mark.parametrize(
    ("value", "part"),
    [
        (Held("a", threading.Lock()), "result.lock is a _thread.lock"),
        ([{"x": Held("a", {1: threading.Lock()})}], "result[0].x.lock[1] is a _thread.lock"),
        (Wordless(x=1), "cannot be shown"),
        (Token(token=SecretStr("hush")), "result.token is a SecretStr, whose secret"),
        (circle(), "result is nested too deeply, or holds itself"),
        (iter([1]), "result is a list_iterator"),
        (type("Local", (BaseModel,), {}), "result is"),
    ],
    ids=["lock", "nested", "wordless", "secret", "circle", "iterator", "class"],
)
async def test_the_model_is_told_that_the_tool_has_run_and_what_was_not_kept(
    engine: Any, new_id: str, value: Any, part: str, handler: Any
) -> None:
    runs: list[int] = []

    @function_tool(failure_error_function=handler)
    def act() -> object:
        runs.append(1)
        return value

    agent = Agent(name="desk", model=Turns(function_call("act", {}, call_id="c1"), "done"), tools=[act])

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert (live.output, replayed.output, runs) == ("done", "done", [1])
    assert part in told(live)
    assert "The tool has run" in told(live)
    assert "do not call it again" in told(live)
    assert told(live) == told(replayed) == agent.model.seen[0]  # type: ignore[union-attr]
    assert engine.value("select error from timestep.tool_calls where run_id = %s", new_id) is None
    assert "hush" not in str(engine.query("select result::text from timestep.tool_calls where run_id = %s", new_id))


async def test_the_text_of_what_was_not_kept_is_told_too(engine: Any, new_id: str) -> None:
    @function_tool
    def act() -> object:
        return Held("the name", threading.Lock())

    agent = Agent(name="desk", model=Turns(function_call("act", {}, call_id="c1"), "done"), tools=[act])

    assert "Held(name='the name', lock=<unlocked" in told(await run_agent_workflow(agent, "Go", workflow_id=new_id))


async def test_the_shown_text_is_stored_where_it_is_not_the_value_s_own_alone(engine: Any, new_id: str) -> None:
    values = [Held("a", 1), {"a", "b"}, {"a": {"a"}}]

    @function_tool
    def act(number: int) -> object:
        return values[number]

    calls = [function_call("act", {"number": number}, call_id=f"c{number}") for number in range(3)]
    await run_agent_workflow(Agent(name="desk", model=Turns(calls, "done"), tools=[act]), "Go", workflow_id=new_id)

    steps = [engine.output(new_id, f"tool_call:1:act:c{number}") for number in range(3)]
    assert [step.get("shown") for step in steps] == [None, str(values[1]), None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"dollars": 5}', 500), ('{"dollars": 5, "ratio": NaN}', 500)],
    ids=["alias and validator", "not a number"],
)
async def test_a_final_output_comes_back_as_it_was(engine: Any, new_id: str, text: str, expected: int) -> None:
    agent = Agent(
        name="desk", model=Turns(assistant_message(text), "done"),
        output_type=AgentOutputSchema(Bill, strict_json_schema=False),
    )  # fmt: skip

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    again = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.output.cents == expected
    assert describe(again.output) == describe(replayed.output) == describe(live.output)
    assert engine.run(new_id)["output"]["cents"] == expected


async def test_a_run_is_not_failed_by_a_final_output_that_cannot_come_back(engine: Any, new_id: str) -> None:
    @function_tool
    def act() -> str:
        return "acted"

    agent = Agent(
        name="desk", model=Turns(function_call("act", {}, call_id="c1"), "done"), tools=[act],
        tool_use_behavior=lambda context, results: ToolsToFinalOutputResult(
            is_final_output=True, final_output=Held("x", threading.Lock())
        ),
        output_type=AgentOutputSchema(dict[str, Any], strict_json_schema=False),
    )  # fmt: skip

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert live.output.name == "x"
    assert engine.status(new_id) == "succeeded"
    assert "Held(name='x'" in str(engine.run(new_id)["output"])


async def test_what_a_guardrail_says_does_not_fail_its_run(engine: Any, new_id: str) -> None:
    def look(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=threading.Lock(), tripwire_triggered=False)

    agent = Agent(name="desk", model=Turns("done"), input_guardrails=[InputGuardrail(guardrail_function=look)])
    register_agents(agent)

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "done"
    assert (await read_result(new_id)).output == "done"
    assert "output_info is a _thread.lock" in str(engine.query("select output from dbos.operation_outputs"))
