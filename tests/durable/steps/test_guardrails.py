"""Guardrails as steps: each runs once, replays answer from the journal, order does not matter."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    OutputGuardrail,
    RunConfig,
    ToolGuardrailFunctionOutput,
    function_tool,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import register_agents, run_agent_workflow


def passes(ran: list[str], name: str) -> Any:
    async def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        ran.append(name)
        return GuardrailFunctionOutput(output_info={"by": name}, tripwire_triggered=False)

    return check


@pytest.mark.parametrize("is_parallel", [True, False])
async def test_every_kind_is_a_step_and_a_replay_runs_none(engine: Any, is_parallel: bool, new_id: str) -> None:
    ran: list[str] = []

    @tool_input_guardrail(name="before")
    def before(data: Any) -> ToolGuardrailFunctionOutput:
        ran.append("tool input")
        return ToolGuardrailFunctionOutput.allow({"ok": 1})

    @tool_output_guardrail(name="after")
    def after(data: Any) -> ToolGuardrailFunctionOutput:
        ran.append("tool output")
        return ToolGuardrailFunctionOutput.allow()

    @function_tool(tool_input_guardrails=[before], tool_output_guardrails=[after])
    def look() -> str:
        ran.append("look")
        return "seen"

    agent = Agent(
        name="assistant",
        tools=[look],
        input_guardrails=[
            InputGuardrail(passes(ran, "first"), name="first", run_in_parallel=is_parallel),
            InputGuardrail(passes(ran, "second"), name="second", run_in_parallel=is_parallel),
        ],
        output_guardrails=[OutputGuardrail(passes(ran, "last"), name="last")],
        model=ScriptedModel([[function_call("look", {}, call_id="c1")], [assistant_message("done")]]),
    )

    await run_agent_workflow(agent, "Go", workflow_id=new_id)
    live = ran.copy()
    copy, replayed = await engine.replay(new_id)

    assert sorted(live) == sorted(["first", "second", "tool input", "look", "tool output", "last"])
    assert ran == live
    assert replayed.output == "done"
    assert engine.steps(copy) == engine.steps(new_id)
    kinds = [step.split(":")[0] for step in engine.steps(new_id)]
    assert kinds.count("input_guardrail") == 2
    assert {"tool_input_guardrails", "tool_output_guardrails", "output_guardrail"} <= set(kinds)
    assert len(set(engine.steps(new_id))) == len(engine.steps(new_id))


async def test_step_ids_of_input_guardrails_do_not_depend_on_which_ends_first(engine: Any, new_id: str) -> None:
    second_is_done = asyncio.Event()

    async def slow(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        await second_is_done.wait()
        return GuardrailFunctionOutput(output_info="slow", tripwire_triggered=False)

    async def fast(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        second_is_done.set()
        return GuardrailFunctionOutput(output_info="fast", tripwire_triggered=False)

    agent = Agent(
        name="assistant",
        input_guardrails=[InputGuardrail(slow, name="slow"), InputGuardrail(fast, name="fast")],
        model=ScriptedModel([[assistant_message("done")]]),
    )

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert engine.steps(new_id)[:2] == ["input_guardrail:1:slow", "input_guardrail:2:fast"]
    assert engine.output(new_id, "input_guardrail:1:slow")["ok"]["output_info"] == "slow"


async def test_a_tripwire_is_raised_again_from_the_journal(engine: Any, new_id: str) -> None:
    ran = []

    async def trip(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        ran.append(given)
        return GuardrailFunctionOutput(output_info={"why": "homework"}, tripwire_triggered=True)

    agent = Agent(
        name="assistant",
        input_guardrails=[InputGuardrail(trip, run_in_parallel=False)],
        model=ScriptedModel([]),
    )

    with pytest.raises(InputGuardrailTripwireTriggered):
        await run_agent_workflow(agent, "Do it", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert isinstance(replayed, InputGuardrailTripwireTriggered)
    assert ran == ["Do it"]


async def test_a_rejecting_tool_guardrail_gives_its_text_to_the_model_again_on_a_replay(
    engine: Any, new_id: str
) -> None:
    ran = []

    @tool_input_guardrail
    def closed(data: Any) -> ToolGuardrailFunctionOutput:
        ran.append("asked")
        return ToolGuardrailFunctionOutput.reject_content("The shop is closed.")

    @function_tool(tool_input_guardrails=[closed])
    def buy() -> str:
        ran.append("bought")
        return "bought"

    agent = Agent(
        name="assistant",
        tools=[buy],
        model=ScriptedModel([[function_call("buy", {}, call_id="c1")], [assistant_message("Sorry")]]),
    )

    live = await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.to_input_list()[1]["output"] == "The shop is closed."
    assert replayed.to_input_list() == live.to_input_list()
    assert ran == ["asked"]


async def test_guardrails_of_a_registered_run_config_are_steps(engine: Any, new_id: str) -> None:
    ran: list[str] = []
    agent = Agent(name="assistant", model=ScriptedModel([[assistant_message("done")]]))
    config = RunConfig(
        input_guardrails=[InputGuardrail(passes(ran, "in"), name="in")],
        output_guardrails=[OutputGuardrail(passes(ran, "out"), name="out")],
    )
    register_agents(agent, run_config=config)

    await run_agent_workflow(agent, "Go", workflow_id=new_id)
    await engine.replay(new_id)

    assert sorted(ran) == ["in", "out"]


async def test_a_guardrail_that_raises_is_the_run_s_error_live_and_replayed(engine: Any, new_id: str) -> None:
    ran = []

    async def broken(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        ran.append(1)
        raise LookupError("no rules")

    agent = Agent(
        name="assistant", output_guardrails=[OutputGuardrail(broken)], model=ScriptedModel([[assistant_message("x")]])
    )

    with pytest.raises(LookupError, match="no rules"):
        await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert isinstance(replayed, LookupError)
    assert ran == [1]
