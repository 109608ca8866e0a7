"""`gather_runs`: wait for many runs, in a tool or anywhere else."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import gather_runs, queue_agent_workflow, run_agent_workflow
from timestep.errors import InvalidInputError, RunNotFoundError

FAN_OUT = 3


def clerk(count: int, name: str = "clerk") -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(f"done {number}")] for number in range(count)]))


def boss(tool: Any) -> Agent[Any]:
    """An agent that calls one tool, and then answers."""
    steps = [[function_call(tool.name, {}, call_id="c1")], [assistant_message("over")]]
    return Agent(name="boss", tools=[tool], model=ScriptedModel(steps))


def children(engine: Any, run_id: str) -> list[str]:
    query = "select id from timestep.runs where parent_run_id = %s order by id"
    return [row["id"] for row in engine.query(query, run_id)]


async def test_a_tool_fans_out_and_gathers_in_order(engine: Any, new_id: str) -> None:
    @function_tool
    async def ask_all() -> list[str]:
        handles = [queue_agent_workflow(agent, f"Look {number}") for number in range(FAN_OUT)]
        return [result.run_id for result in await gather_runs(*handles)]

    agent = clerk(FAN_OUT)
    await run_agent_workflow(boss(ask_all), "Go", workflow_id=new_id)

    expected = [f"{new_id}:1:c1:{number + 1}" for number in range(FAN_OUT)]
    assert children(engine, new_id) == expected
    assert engine.value("select result::text from timestep.tool_calls where run_id = %s", new_id) is not None
    assert [engine.status(each) for each in expected] == ["succeeded"] * FAN_OUT


async def test_what_a_run_ended_with_is_raised_when_all_have_ended(engine: Any) -> None:
    good, bad = clerk(2), Agent[Any](name="bad", model=ScriptedModel([ValueError("broken")]))
    handles = [queue_agent_workflow(agent, "Look") for agent in (good, bad, good)]

    with pytest.raises(ValueError, match="broken"):
        await gather_runs(*handles)
    assert [engine.status(each.run_id) for each in handles] == ["succeeded", "failed", "succeeded"]
    first, second, third = await gather_runs(*handles, return_exceptions=True)
    assert isinstance(second, ValueError)
    assert {first.output, third.output} == {"done 0", "done 1"}


async def test_what_is_no_run_is_refused(engine: Any) -> None:
    with pytest.raises(RunNotFoundError, match="nobody"):
        await gather_runs("nobody")
    with pytest.raises(InvalidInputError, match="handles and run ids"):
        await gather_runs(1)  # type: ignore[arg-type]
    assert await gather_runs() == []
