"""Runs that tools and workflows start: their ids, waiting for many of them, and cancelling them with their parent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from dbos import DBOS, SetWorkflowID
from own_workflows import again, workflow

from timestep import Client, gather_runs, queue_agent_workflow, run_agent_workflow, wait_run
from timestep.durable.process.gate import gate
from timestep.errors import RunCancelledError, UnsupportedError

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


async def test_a_run_in_a_tool_is_a_child_with_an_id_made_of_the_call(engine: Any, new_id: str) -> None:
    @function_tool
    async def ask() -> str:
        return (await run_agent_workflow(agent, "Look")).output

    agent = clerk(1)
    await run_agent_workflow(boss(ask), "Go", workflow_id=new_id)

    assert children(engine, new_id) == [f"{new_id}:1:c1:1"]
    assert engine.output(new_id, "tool_call:1:ask:c1")["ok"] == "done 0"
    assert engine.status(f"{new_id}:1:c1:1") == "succeeded"


async def test_a_workflow_fans_out_and_a_replay_starts_nothing_again(engine: Any, new_id: str) -> None:
    agent = clerk(FAN_OUT)

    async def own() -> list[str]:
        handles = [queue_agent_workflow(agent, f"Look {number}") for number in range(FAN_OUT)]
        return [result.run_id for result in await gather_runs(*handles)]

    function = workflow(own)
    with SetWorkflowID(new_id):
        gathered = await function()

    assert gathered == children(engine, new_id) == [f"{new_id}-{number + 1}" for number in range(FAN_OUT)]
    assert engine.steps(new_id) == ["gather_runs"]
    assert len(agent.model.calls) == FAN_OUT


async def test_a_child_of_a_workflow_is_found_again_by_a_replay(engine: Any, new_id: str) -> None:
    agent = clerk(1)

    async def own() -> str:
        return (await run_agent_workflow(agent, "Look")).output

    function = workflow(own)
    with SetWorkflowID(new_id):
        output = await function()

    assert output == await again(engine, new_id) == "done 0"
    assert children(engine, new_id) == [f"{new_id}-1"]


async def test_a_run_in_a_step_that_is_no_tool_needs_an_id(engine: Any, new_id: str) -> None:
    agent = clerk(1)

    async def step(run_id: str | None) -> str:
        return (await run_agent_workflow(agent, "Look", workflow_id=run_id)).output

    async def own() -> str:
        with pytest.raises(UnsupportedError, match="needs an id") as found:
            await DBOS.run_step_async({"name": "without"}, step, None)
        assert "workflow_id" in found.value.hint
        return await DBOS.run_step_async({"name": "with"}, step, f"named-{new_id}")

    with SetWorkflowID(new_id):
        assert await workflow(own)() == "done 0"


@pytest.mark.parametrize("is_direct", [True, False], ids=["run_agent_workflow", "gather_runs"])
async def test_children_are_cancelled_and_resumed_with_their_parent_when_asked(
    engine: Any, new_id: str, until: Any, is_direct: bool
) -> None:
    inside, release = asyncio.Event(), asyncio.Event()

    @function_tool
    async def hold() -> str:
        inside.set()
        await release.wait()
        return "held"

    child = boss(hold)
    child.name = "child"

    @function_tool
    async def ask() -> str:
        if is_direct:
            return (await run_agent_workflow(child, "Look")).output
        [result] = await gather_runs(queue_agent_workflow(child, "Look"))
        return result.output

    work = asyncio.create_task(run_agent_workflow(boss(ask), "Go", workflow_id=new_id))
    child_id = f"{new_id}:1:c1:1"
    await asyncio.to_thread(until, lambda: engine.status(child_id) == "running" and inside.is_set(), "the child runs")
    assert gate.inside == 1  # that of the child: a drain does not wait for who waits

    async with Client() as client:
        await client.cancel_run(new_id, children=True)
        with contextlib.suppress(RunCancelledError):
            await work
        assert (engine.status(child_id), engine.run(child_id)["reason"]) == ("cancelled", "parent_cancelled")
        release.set()
        await client.resume_run(new_id)
    assert (await wait_run(new_id)).output == "over"
    assert engine.status(child_id) == "succeeded"
    assert engine.output(new_id, "tool_call:1:ask:c1")["ok"] == "over"


async def test_children_go_on_when_only_their_parent_is_cancelled(engine: Any, new_id: str) -> None:
    agent = clerk(1)

    async def own() -> str:
        return queue_agent_workflow(agent, "Look", delay_seconds=3600).run_id

    with SetWorkflowID(new_id):
        child_id = await workflow(own)()
    parent = queue_agent_workflow(agent, "Look", workflow_id=f"p-{new_id}", delay_seconds=3600)
    engine.query("update timestep.runs set parent_run_id = %s where id = %s", parent.run_id, child_id)
    async with Client() as client:
        await client.cancel_run(parent.run_id)
        assert engine.status(child_id) == "queued"
        await client.cancel_run(parent.run_id, children=True)  # asked later
        assert engine.status(child_id) == "cancelled"
