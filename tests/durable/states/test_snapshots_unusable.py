"""Stored states that cannot be used are refused by name, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent
from agents.testing import function_call
from refund_desk import Desk, Turns, approved

from timestep import (
    RunStateStore,
    approve,
    register_agents,
    run_agent,
    run_agent_workflow,
    wait_run,
)
from timestep.client.runs import resume_run
from timestep.durable.process.engine import engine as launched
from timestep.durable.process.registered_agents import forget_agents
from timestep.errors import (
    AgentAlreadyRegisteredError,
    SnapshotDamagedError,
    SnapshotMismatchError,
    SnapshotTooLargeError,
    UnsupportedError,
)


async def test_a_snapshot_of_another_agent_is_refused(engine: Any) -> None:
    store = await Desk().interrupted()
    with pytest.raises(SnapshotMismatchError, match="'desk', not of 'office'"):
        await RunStateStore(Desk(name="office").agent, store.session_id).load()
    assert (await store.load()).get_interruptions()


async def test_a_snapshot_of_a_newer_schema_or_of_another_sdk_is_refused(engine: Any) -> None:
    store = await Desk().interrupted()
    for change, value in (("schema_version", "1.999"), ("sdk", "javascript")):
        engine.query(f"update timestep.run_states set {change} = %s where session_id = %s", value, store.session_id)
        with pytest.raises(UnsupportedError, match=value):
            await store.load()


async def test_an_edited_snapshot_is_refused_and_usable_when_it_is_put_back(engine: Any) -> None:
    store = await Desk().interrupted()
    text = engine.value("select state::text from timestep.run_states where session_id = %s", store.session_id)
    for edited in (text.replace('\\"7\\"', '\\"70\\"'), "{}"):
        assert edited != text
        engine.query("update timestep.run_states set state = %s where session_id = %s", edited, store.session_id)
        with pytest.raises(SnapshotDamagedError):
            await store.load()
    engine.query("update timestep.run_states set state = %s where session_id = %s", text, store.session_id)
    assert (await store.load()).get_interruptions()


async def test_a_state_of_20_mb_is_refused_and_nothing_is_stored(engine: Any) -> None:
    desk = Desk("x" * 5_000_000)  # a state holds a text four times
    store = RunStateStore(desk.agent)
    result = await run_agent(desk.agent, "Hi")
    with pytest.raises(SnapshotTooLargeError, match="20,0"):
        await store.save(result.to_state())
    with pytest.raises(FileNotFoundError):
        await store.load()


async def test_a_tool_that_has_gone_is_named_and_the_state_usable_when_it_is_back(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    without = RunStateStore(Desk(tools=False).agent, store.session_id)
    with pytest.raises(SnapshotMismatchError, match="'refund', which 'desk' does not have"):
        await without.load()
    assert (await run_agent(desk.agent, await approved(store))).output == "done"


async def test_a_tool_of_a_nested_agent_that_has_gone_is_named(engine: Any) -> None:
    def outer(*, tools: bool) -> tuple[Desk, Agent[Any]]:
        inner = Desk(function_call("refund", {"order": "7"}, call_id="c1"), "inner done", name="inner", tools=tools)
        tool = inner.agent.as_tool(tool_name="ask_inner", tool_description="Asks")
        call = function_call("ask_inner", {"input": "go"}, call_id="outer")
        return inner, Agent(name="outer", model=Turns(call, "done"), tools=[tool])

    inner, agent = outer(tools=True)
    store = RunStateStore(agent)
    await store.save((await run_agent(agent, "Refund")).to_state())
    with pytest.raises(SnapshotMismatchError, match="refund"):
        await RunStateStore(outer(tools=False)[1], store.session_id).load()
    assert (await run_agent(agent, await approved(store))).output == "done"
    assert inner.refunded == ["7"]


async def test_a_durable_run_whose_tool_has_gone_is_parked_and_goes_on_after_the_fix(engine: Any, new_id: str) -> None:
    desk = Desk(function_call("refund", {"order": "7"}, call_id="c1"), "done")
    await run_agent_workflow(desk.agent, "Refund", workflow_id=new_id)
    forget_agents()
    register_agents(Desk(tools=False).agent)
    await approve(new_id, "c1", by="alice")
    await asyncio.to_thread(engine.wait_for_status, new_id, "interrupted")
    await asyncio.to_thread(engine.wait_until_refused, f"{new_id}~2")
    assert engine.run(new_id)["reason"] == "snapshot_mismatch_error"

    forget_agents()
    register_agents(desk.agent)
    await asyncio.to_thread(resume_run, launched().connector, new_id)
    assert (await wait_run(new_id)).output == "done"
    assert desk.refunded == ["7"]


async def test_two_agents_of_one_name(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    register_agents(desk.agent)
    with pytest.raises(AgentAlreadyRegisteredError, match="desk"):
        await run_agent_workflow(Desk(tools=False).agent, await approved(store))
    assert (await run_agent_workflow(desk.agent, await approved(store))).output == "done"


async def test_a_state_that_cannot_tell_two_agents_apart_is_not_stored(engine: Any) -> None:
    one, two = Desk(), Desk(name="other")
    front = Agent[Any](name="front", model=Turns("done"), handoffs=[one.agent, two.agent])
    store = RunStateStore(front)
    state = (await run_agent(front, "Hi")).to_state()
    await store.save(state)
    two.agent.name = "desk"
    for refused in (store.save(state), store.load()):
        with pytest.raises(SnapshotMismatchError, match="two agents of the name 'desk'"):
            await refused
    two.agent.name = "other"
    assert (await run_agent(front, await store.load())).output == "done"
