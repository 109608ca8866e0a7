"""Runs that tools and workflows start: their ids, waiting for many of them, and cancelling them with their parent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from dbos import DBOS, DBOSClient, SetWorkflowID
from own_workflows import again, workflow

from timestep import Client, gather_runs, queue_agent_workflow, run_agent_workflow, wait_run
from timestep.durable.process import running_steps
from timestep.durable.process.gate import gate
from timestep.errors import RunCancelledError, UnsupportedError

FAN_OUT = 3


def clerk(count: int, name: str = "clerk") -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(f"done {number}")] for number in range(count)]))


def boss(tool: Any, name: str = "boss") -> Agent[Any]:
    """An agent that calls one tool, and then answers."""
    steps = [[function_call(tool.name, {}, call_id="c1")], [assistant_message("over")]]
    return Agent(name=name, tools=[tool], model=ScriptedModel(steps))


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

    child = boss(hold, name="child")

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


@pytest.mark.parametrize("way", ["run_agent_workflow", "wait_run", "gather_runs", "return_exceptions", "handle"])
async def test_the_model_never_reads_that_a_child_was_cancelled_with_its_parent(
    engine: Any, new_id: str, until: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The rows of both are cancelled together, and DBOS learns of it later: here only when the tool has ended."""
    held, inside, release = threading.Event(), asyncio.Event(), asyncio.Event()

    @function_tool
    async def hold() -> str:
        inside.set()
        await release.wait()
        return "held"

    child = boss(hold, name=f"child-of-{way}")

    async def see() -> str:
        if way == "run_agent_workflow":
            return (await run_agent_workflow(child, "Look")).output
        handle = queue_agent_workflow(child, "Look")
        if way == "wait_run":
            return (await wait_run(handle.run_id)).output
        [result] = await gather_runs(handle, return_exceptions=way == "return_exceptions")
        return str(result.output) if hasattr(result, "output") else f"saw {result}"

    @function_tool
    async def ask() -> str:
        return await see()

    @function_tool(name_override="ask")
    def ask_and_block() -> str:
        return str(queue_agent_workflow(child, "Look").get_result().output)

    parent: Any = boss(ask_and_block if way == "handle" else ask, name=f"parent-of-{way}")
    work = asyncio.create_task(run_agent_workflow(parent, "Go", workflow_id=new_id))
    child_id = f"{new_id}:1:c1:1"
    await asyncio.to_thread(until, lambda: engine.status(child_id) == "running" and inside.is_set(), "the child runs")

    async with Client() as client:
        cancel = DBOSClient.cancel_workflows
        monkeypatch.setattr(DBOSClient, "cancel_workflows", lambda dbos, ids: held.wait() and cancel(dbos, ids))
        cancelling = asyncio.create_task(client.cancel_run(new_id, children=True))
        with contextlib.suppress(RunCancelledError):
            await work
        await asyncio.to_thread(until, lambda: new_id not in running_steps.workflows_in_flight(), "the tool ends")
        held.set()
        await cancelling
        assert engine.steps(new_id) == [f"model_turn:1:parent-of-{way}"]
        assert len(parent.model.calls) == 1
        release.set()
        await client.resume_run(new_id)
    assert (await wait_run(new_id)).output == "over"
    assert engine.output(new_id, "tool_call:1:ask:c1")["ok"] == "over"
    assert len(parent.model.calls) == 2


async def test_a_run_that_waited_for_a_person_takes_its_children_along_when_it_is_resumed(
    engine: Any, new_id: str
) -> None:
    agent = clerk(1, name="late")

    async def own() -> str:
        return queue_agent_workflow(agent, "Look", delay_seconds=3600).run_id

    @function_tool(needs_approval=True)
    def pay() -> str:
        return "paid"

    with SetWorkflowID(f"w-{new_id}"):
        child_id = await workflow(own)()
    await run_agent_workflow(boss(pay, name="payer"), "Pay", workflow_id=new_id)
    engine.query("update timestep.runs set parent_run_id = %s where id = %s", new_id, child_id)
    async with Client() as client:
        await client.cancel_run(new_id, children=True)
        assert engine.status(child_id) == "cancelled"
        await client.resume_run(new_id)
    assert (engine.status(new_id), engine.status(child_id)) == ("interrupted", "queued")
