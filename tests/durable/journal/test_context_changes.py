"""What tools change in the context of a run is there again after a replay."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

from timestep import (
    register_agents,
    run_agent_workflow,
)


def asks(tools: list[Any], *turns: list[Any], name: str = "assistant") -> Agent[Any]:
    """An agent whose model asks for these calls, turn by turn, and then answers `done`."""
    return Agent(name=name, tools=tools, model=ScriptedModel([*turns, [assistant_message("done")]]))


def outputs(agent: Agent[Any]) -> list[Any]:
    """What the model was told about its calls at last."""
    items = agent.model.last_call.input
    return [item["output"] for item in items if item.get("type") == "function_call_output"]


@dataclasses.dataclass
class Basket:
    goods: list[str]
    is_paid: bool = False


class Customer(BaseModel):
    name: str
    visits: int = 0


@pytest.mark.parametrize(
    ("context", "kind", "expected"),
    [
        ({"goods": [], "left": 1}, None, {"goods": ["pen", "ink"], "paid": True}),
        (Basket(goods=[]), Basket, Basket(goods=["pen", "ink"], is_paid=True)),
        (Customer(name="Ann"), Customer, Customer(name="Bob", visits=2)),
    ],
    ids=["dict", "dataclass", "pydantic"],
)
async def test_what_tools_change_in_the_context_is_there_again_after_a_replay(
    engine: Any, context: Any, kind: type | None, expected: Any, new_id: str
) -> None:
    ran, seen = [], []

    @function_tool
    def take(wrapper: RunContextWrapper[Any], thing: str) -> str:
        ran.append(thing)
        held = wrapper.context
        if isinstance(held, dict):
            held["goods"] = [*held["goods"], thing]
            held["paid"] = True
            held.pop("left", None)
        elif isinstance(held, Basket):
            held.goods.append(thing)
            held.is_paid = True
        else:
            held.visits += 1
            held.name = "Bob"
        return "taken"

    def instructions(wrapper: RunContextWrapper[Any], agent: Agent[Any]) -> str:
        seen.append(repr(wrapper.context))
        return "Help."

    agent = Agent(
        name="assistant",
        instructions=instructions,
        tools=[take],
        model=ScriptedModel(
            [
                [function_call("take", {"thing": "pen"}, call_id="c1")],
                [function_call("take", {"thing": "ink"}, call_id="c2")],
                [assistant_message("done")],
            ]
        ),
    )
    register_agents(agent, context_type=kind)

    await run_agent_workflow(agent, "Shop", workflow_id=new_id, context=context)
    live, count = list(seen), len(agent.model.calls)
    _, replayed = await engine.replay(new_id)

    assert live[-1] == repr(expected)
    assert seen[len(live) :] == live
    assert len(agent.model.calls) == count
    assert ran == ["pen", "ink"]
    assert replayed.output == "done"


async def test_a_failing_tool_s_changes_to_the_context_are_there_again_too(engine: Any, new_id: str) -> None:
    seen = []

    @function_tool
    def half(wrapper: RunContextWrapper[Any]) -> str:
        wrapper.context["half"] = True
        raise ValueError("in the middle")

    def instructions(wrapper: RunContextWrapper[Any], agent: Agent[Any]) -> str:
        seen.append(dict(wrapper.context))
        return "Help."

    agent = asks([half], [function_call("half", {}, call_id="c1")])
    agent.instructions = instructions

    await run_agent_workflow(agent, "Go", workflow_id=new_id, context={})
    await engine.replay(new_id)

    assert seen == [{}, {"half": True}] * 2
