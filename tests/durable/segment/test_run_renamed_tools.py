"""A tool that is renamed under the same application version: its run waits for code that fits, and goes on there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, ModelBehaviorError, UserError, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import register_agents, run_agent_workflow
from timestep.client.executors import list_stranded_runs
from timestep.client.runs import get_run, resume_run
from timestep.durable.process.engine import engine as launched
from timestep.durable.process.registered_agents import forget_agents

asked: list[str] = []


def agent_with(tool_name: str, *, fails: bool = False) -> Agent[Any]:
    def body() -> str:
        if fails:
            raise ValueError("not yet")
        asked.append(tool_name)
        return "seen"

    tool = function_tool(body, name_override=tool_name, failure_error_function=None)
    turns = [[function_call("look", {}, call_id="c1")], [assistant_message("done")]]
    return Agent(name="clerk", tools=[tool], model=ScriptedModel(turns[1:] if not fails else turns))


async def resume_with(engine: Any, agent: Agent[Any], run_id: str) -> Any:
    forget_agents()
    register_agents(agent)
    await asyncio.to_thread(resume_run, launched().connector, run_id)
    await asyncio.to_thread(engine.wait_for_status, run_id, "failed", "succeeded", "interrupted")
    return get_run(launched().connector, run_id)


async def test_a_run_whose_tool_was_renamed_is_parked_and_goes_on_with_the_right_code(engine: Any, new_id: str) -> None:
    asked.clear()
    with pytest.raises(UserError):
        await run_agent_workflow(agent_with("look", fails=True), "Look", workflow_id=new_id)

    run = await resume_with(engine, agent_with("look_up"), new_id)
    assert (run.status, run.reason) == ("interrupted", "history_changed")
    assert run.error is not None
    assert "look" in run.error["message"]
    assert new_id in [each.run_id for each in list_stranded_runs(launched().connector)]

    run = await resume_with(engine, agent_with("look_up"), new_id)
    assert (run.status, run.reason) == ("interrupted", "history_changed")
    run = await resume_with(engine, agent_with("look"), new_id)
    assert (run.status, run.output, asked) == ("succeeded", "done", ["look"])


async def test_a_tool_that_no_code_ever_had_fails_the_run_in_every_replay(engine: Any, new_id: str) -> None:
    agent = Agent(name="dreamer", model=ScriptedModel([[function_call("dreamt", {}, call_id="c1")]]))
    with pytest.raises(ModelBehaviorError):
        await run_agent_workflow(agent, "Look", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)
    assert isinstance(replayed, ModelBehaviorError)
