"""Handoffs: circular ones, callbacks that run once, history."""

from __future__ import annotations

from typing import Any

from agents import Agent, RunContextWrapper, handoff
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

from timestep import run_agent_workflow


class Reason(BaseModel):
    why: str


async def test_a_circle_of_agents_hands_over_and_back(engine: Any, new_id: str) -> None:
    front, back = Agent(name="front"), Agent(name="back")
    front.handoffs, back.handoffs = [back], [front]
    front.model = ScriptedModel(
        [[function_call("transfer_to_back", {}, call_id="h1")], [assistant_message("Welcome back")]]
    )
    back.model = ScriptedModel([[function_call("transfer_to_front", {}, call_id="h2")]])

    live = await run_agent_workflow(front, "Go round", workflow_id=new_id)
    calls = len(front.model.calls), len(back.model.calls)
    copy, replayed = await engine.replay(new_id)

    assert live.output == replayed.output == "Welcome back"
    assert live.last_agent is replayed.last_agent is front
    assert live.to_input_list() == replayed.to_input_list()
    assert (len(front.model.calls), len(back.model.calls)) == calls == (2, 1)
    assert engine.steps(new_id) == [
        "model_turn:1:front",
        "handoff:1:transfer_to_back:h1",
        "model_turn:2:back",
        "handoff:2:transfer_to_front:h2",
        "model_turn:3:front",
    ]
    assert engine.steps(copy) == engine.steps(new_id)


async def test_the_callback_of_a_handoff_runs_once(engine: Any, new_id: str) -> None:
    told = []

    async def tell(context: RunContextWrapper[Any], given: Reason) -> None:
        told.append(given.why)

    desk = Agent(name="desk", model=ScriptedModel([[assistant_message("Here")]]))
    front = Agent(
        name="front",
        handoffs=[handoff(desk, on_handoff=tell, input_type=Reason)],
        model=ScriptedModel([[function_call("transfer_to_desk", {"why": "refund"}, call_id="h1")]]),
    )

    await run_agent_workflow(front, "Refund", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert told == ["refund"]
    assert replayed.output == "Here"
    assert replayed.last_agent is desk


async def test_the_result_of_another_agent_is_of_its_output_type(engine: Any, new_id: str) -> None:
    desk = Agent(name="desk", output_type=Reason, model=ScriptedModel([[assistant_message('{"why": "late"}')]]))
    front = Agent(
        name="front",
        handoffs=[desk],
        model=ScriptedModel([[function_call("transfer_to_desk", {}, call_id="h1")]]),
    )

    live = await run_agent_workflow(front, "Why?", workflow_id=new_id)
    recorded = await run_agent_workflow(front, "Why?", workflow_id=new_id)

    assert live.output == recorded.output == Reason(why="late")
    assert engine.run(new_id)["last_agent"] == "desk"


async def test_history_is_not_nested_unless_asked_for(new_id: str, engine: Any) -> None:
    desk = Agent(name="desk", model=ScriptedModel([[assistant_message("Here")]]))
    front = Agent(
        name="front",
        handoffs=[desk],
        model=ScriptedModel([[function_call("transfer_to_desk", {}, call_id="h1")]]),
    )

    await run_agent_workflow(front, "Refund", workflow_id=new_id)

    kinds = [item.get("type", item.get("role")) for item in desk.model.last_call.input]
    assert kinds == ["user", "function_call", "function_call_output"]


async def test_only_the_first_of_two_handoffs_of_a_turn_is_taken(engine: Any, new_id: str) -> None:
    one = Agent(name="one", model=ScriptedModel([[assistant_message("One")]]))
    two = Agent(name="two", model=ScriptedModel([[assistant_message("Two")]]))
    front = Agent(
        name="front",
        handoffs=[one, two],
        model=ScriptedModel(
            [[function_call("transfer_to_one", {}, call_id="h1"), function_call("transfer_to_two", {}, call_id="h2")]]
        ),
    )

    live = await run_agent_workflow(front, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.output == replayed.output == "One"
    assert live.to_input_list() == replayed.to_input_list()
