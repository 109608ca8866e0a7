"""What tools return, put into the context and end a run with comes back: live, again, replayed, later, elsewhere."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
from agents import Agent, AgentOutputSchema, RunContextWrapper, function_tool
from agents.testing import function_call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from turns import Turns
from zoo import VALUES, ZOO, describe

from timestep import approve, register_agents, run_agent_workflow, wait_run
from timestep.durable.process.registered_agents import forget_agents
from timestep.durable.start import read_result
from timestep.ids import new_run_id
from timestep.settings import current_settings

EXAMPLES = int(os.environ.get("TIMESTEP_TEST_EXAMPLES", "10"))
HAS_TEXT = [value for value in ZOO if not isinstance(value, int) or value < 10**4000][:-3]
ORDER = ("allow", "look", "look", "finish")
"""What follows the values: an approval, a look in the segment after it, and one after the end of that segment."""


@dataclasses.dataclass
class Cart:
    """A context of a program's own."""

    owner: str
    things: dict[str, Any] = dataclasses.field(default_factory=dict)
    last: Any = None


class Room(BaseModel):
    """A context of pydantic, which a tool gives further fields."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    owner: str = "ada"
    things: dict[str, Any] = {}
    last: int = 0


@pytest.fixture(autouse=True)
def _short_segments(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(current_settings()), "max_turns_per_segment", 2)


def journey(values: list[Any]) -> Agent[Any]:
    """An agent that asks for each value, waits for a person, looks at its context, and ends with the values."""

    @function_tool
    def give(context: RunContextWrapper[Any], number: int) -> Any:
        things_of(context.context)[f"v{number}"] = values[number]
        if number == len(values) - 1 and not isinstance(context.context, dict):  # the calls run in parallel
            context.context.last = values[number]
        return values[number]

    @function_tool(needs_approval=True)
    def allow() -> str:
        return "allowed"

    @function_tool
    def look(context: RunContextWrapper[Any]) -> str:
        return describe(context.context)

    @function_tool
    def finish() -> Any:
        return values

    calls = [function_call("give", {"number": number}, call_id=f"c{number}") for number in range(len(values))]
    others = [function_call(name, {}, call_id=f"{name}{number}") for number, name in enumerate(ORDER)]
    return Agent(
        name="journey", model=Turns(calls, *others), tools=[give, allow, look, finish],
        tool_use_behavior={"stop_at_tool_names": ["finish"]},
        output_type=AgentOutputSchema(list[Any], strict_json_schema=False),
    )  # fmt: skip


def things_of(context: Any) -> dict[str, Any]:
    """Where the tools of a context put their values."""
    return context if isinstance(context, dict) else context.things


def texts(result: Any) -> list[Any]:
    """What the model read of the values."""
    found = [item.raw_item for item in result.new_items if item.type == "tool_call_output_item"]
    return [item["output"] for item in found if item["call_id"].startswith("c")]


def shown(value: Any) -> str:
    """What a plain run shows the model of a value."""
    return str.__str__(value) if isinstance(value, str) else str(value)


def outputs(result: Any) -> list[str]:
    """What the tools returned, as the result has it."""
    found = [item for item in result.new_items if item.type == "tool_call_output_item"]
    return [describe(item.output) for item in found if item.raw_item["call_id"].startswith("c")]


async def check_journey(engine: Any, values: list[Any], context: Any) -> None:
    run_id, agent = new_run_id(), journey(values)
    forget_agents()
    kind = type(context) if not isinstance(context, dict) else None
    register_agents(agent, context_type=kind)
    expected = [describe(value) for value in values]
    things_of(context).update(
        {f"v{number}": None for number in range(len(values))}
    )  # calls in parallel keep this order

    parked = await run_agent_workflow(agent, "Go", workflow_id=run_id, context=context)
    waiting = describe(parked.context)
    copy, replayed = await engine.replay(run_id)
    read = await read_result(run_id)

    assert copy != run_id
    assert texts(parked) == texts(replayed) == texts(read) == [shown(value) for value in values]
    assert outputs(parked) == outputs(replayed) == outputs(read) == expected
    assert describe(replayed.context) == describe(read.context) == waiting

    await approve(run_id, "allow0", by="ann")
    ended = await wait_run(run_id)
    again = await run_agent_workflow(agent, "Go", workflow_id=run_id, context=context)

    assert describe(ended.output) == describe(again.output) == describe(values)
    assert texts(ended) == [shown(value) for value in values]
    assert outputs(ended) == outputs(again) == expected
    found = [item.raw_item for item in ended.new_items if item.type == "tool_call_output_item"]
    looked = [item["output"] for item in found if item["call_id"].startswith("look")]
    assert [*looked, describe(ended.context), describe(again.context)] == [waiting] * 4
    assert [describe(things_of(ended.context)[f"v{number}"]) for number in range(len(values))] == expected
    assert engine.run(run_id)["segment"] >= 3


CONTEXTS = {"dict": lambda: {"owner": "ada"}, "dataclass": lambda: Cart("ada"), "model": Room}


@pytest.mark.parametrize("kind", CONTEXTS)
async def test_every_value_comes_back_on_every_way(engine: Any, kind: str) -> None:
    await check_journey(engine, HAS_TEXT, CONTEXTS[kind]())


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the threads of the engine do
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, min_size=1, max_size=6), st.sampled_from(sorted(CONTEXTS)))
async def test_any_value_comes_back_on_every_way(engine: Any, values: list[Any], kind: str) -> None:
    await check_journey(engine, values, CONTEXTS[kind]())
