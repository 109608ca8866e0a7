"""A stored state goes on: once, in its run, with its session, in the store it came from."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import ModelResponse, SQLiteSession
from payments import Shop, look, pay
from turns import Turns

from timestep import (
    ApprovalAlreadyDecided,
    RunStateStore,
    Session,
    SnapshotAlreadyResumed,
    approve,
    register_agents,
    reject,
    run_agent_workflow,
    wait_run,
)
from timestep.client.runs import resume_run
from timestep.durable.process.engine import engine as launched
from timestep.errors import (
    InvalidInputError,
    SnapshotMismatchError,
)


async def test_the_documented_flow_works_in_a_durable_run(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent([look("box", "c0"), pay(5, "c1")], "done")
    result = await run_agent_workflow(agent, "Buy", workflow_id=new_id)

    assert [item.tool_name for item in result.interruptions] == ["pay"]
    assert engine.status(new_id) == result.status == "interrupted"
    assert shop.done == ["look box"]
    state = result.to_state()
    for interruption in state.get_interruptions():
        state.approve(interruption)
    result = await run_agent_workflow(agent, state)

    assert (result.output, result.run_id, result.segment) == ("done", new_id, 2)
    assert shop.done == ["look box", "pay 5"]
    [row] = engine.query("select * from timestep.approvals where run_id = %s", new_id)
    assert (row["status"], row["decided_by"]) == ("approved", "program")
    assert row["consumed_at"] is not None


async def test_a_stored_state_continues_its_run_in_the_store_of_its_session(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    session = Session()
    store = RunStateStore(agent, session_id=session.session_id)
    result = await run_agent_workflow(agent, "Buy", session, workflow_id=new_id)
    await store.save(result.to_state())

    state = await store.load()
    state.reject(state.get_interruptions()[0], rejection_message="Too much")
    result = await run_agent_workflow(agent, state, session)

    assert (result.output, result.run_id) == ("done", new_id)
    assert shop.done == []
    assert agent.model.seen == ["Too much"]  # type: ignore[union-attr] - it is a Turns
    items = engine.query(
        "select item from timestep.session_items where session_id = %s order by position", session.session_id
    )
    assert [row["item"].get("type") or row["item"].get("role") for row in items] == [
        "user",
        "function_call",
        "function_call_output",
        "message",
    ]


async def test_a_state_resumes_once_and_another_run_may_branch_from_it(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    state.approve(state.get_interruptions()[0])

    results = await asyncio.gather(
        run_agent_workflow(agent, state), run_agent_workflow(agent, state), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in results) == ["DurableRunResult", "SnapshotAlreadyResumed"]
    with pytest.raises(SnapshotAlreadyResumed):
        await run_agent_workflow(agent, state)
    branched = await run_agent_workflow(agent, state, branch=True)

    assert branched.run_id != new_id
    assert (branched.output, shop.done) == ("done", ["pay 5", "pay 5"])


async def test_a_state_of_one_run_is_refused_for_another_id_and_another_agent(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()

    with pytest.raises(InvalidInputError, match=new_id):
        await run_agent_workflow(agent, state, workflow_id="other")
    with pytest.raises(SnapshotMismatchError, match="shop"):
        await run_agent_workflow(shop.agent("x", name="office"), state)
    assert engine.status(new_id) == "interrupted"


async def test_a_state_without_decisions_waits_on(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent([pay(5, "c1"), pay(6, "c2")], "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    state.approve(state.get_interruptions()[0])

    result = await run_agent_workflow(agent, state)
    assert (result.status, shop.done) == ("interrupted", [])
    await reject(new_id, "c2", by="bob", reason="No")

    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["pay 5"]


async def test_a_decision_of_a_state_loses_to_an_earlier_one(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent([pay(5, "c1"), pay(6, "c2")], "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    await reject(new_id, "c1", by="bob")
    state.approve(state.get_interruptions()[0])

    with pytest.raises(ApprovalAlreadyDecided, match="bob") as caught:
        await run_agent_workflow(agent, state)
    assert caught.value.decided_by == "bob"
    assert engine.status(new_id) == "interrupted"


async def test_a_failed_resume_gives_the_state_back(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    state.approve(state.get_interruptions()[0])
    model, agent.model = agent.model, Failing()
    with pytest.raises(RuntimeError, match="no model"):
        await run_agent_workflow(agent, state)
    agent.model = model

    assert (await run_agent_workflow(agent, state)).output == "done"
    assert shop.done == ["pay 5"]


class Failing(Turns):
    """A model that is not there."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise RuntimeError("no model")


async def test_the_closing_of_an_interrupted_turn_keeps_its_items_back(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(look("a", "c0"), [look("b", "c1"), pay(5, "c2")], "done")
    session = Session()
    await run_agent_workflow(agent, "Buy", session, workflow_id=new_id)
    assert len(await session.get_items()) == 3  # the input, and the first turn
    await approve(new_id, "c2", by="alice")
    await wait_run(new_id)
    items = await session.get_items()
    assert [item.get("type") for item in items].count("function_call") == 3
    assert [item.get("type") for item in items].count("function_call_output") == 3
    assert shop.done == ["look a", "look b", "pay 5"]


async def test_a_resumed_run_brings_a_session_of_another_kind_no_item_twice(engine: Any, new_id: str) -> None:
    shop, kept = Shop(), SQLiteSession(new_id)
    agent = shop.agent(look("a", "c0"), "done")
    register_agents(agent, session_factory=lambda session_id: kept)
    model, agent.model = agent.model, FailingLater(look("a", "c0"))
    with pytest.raises(RuntimeError, match="no model"):
        await run_agent_workflow(agent, "Look", new_id, workflow_id=new_id)
    assert len(await kept.get_items()) == 3
    model.count, agent.model = 1, model  # type: ignore[union-attr] - it is a Turns

    await asyncio.to_thread(resume_run, launched().connector, new_id)
    assert (await wait_run(new_id)).output == "done"
    assert [item.get("role") or item["type"] for item in await kept.get_items()] == [
        "user",
        "function_call",
        "function_call_output",
        "assistant",
    ]
    assert shop.done == ["look a"]
    kept.close()


class FailingLater(Turns):
    """A model that is gone in its second turn."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        if self.count:
            raise RuntimeError("no model")
        return await super().get_response(*args, **kwargs)
