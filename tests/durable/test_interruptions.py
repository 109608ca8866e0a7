"""A run waits for a person as rows, anybody decides, and it goes on in its next segment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent
from agents.testing import function_call
from dbos import DBOS, SetWorkflowID
from payments import Shop, look, pay
from turns import Turns

from timestep import (
    InterruptionException,
    RunLimits,
    approve,
    ask_user,
    list_approvals,
    queue_agent_workflow,
    raise_limits,
    register_agents,
    run_agent,
    run_agent_workflow,
    tool_policy,
    wait_run,
)
from timestep.client.decide import answer
from timestep.client.runs import cancel_run, resume_run
from timestep.durable.process.engine import engine as launched
from timestep.errors import (
    ApprovalExpiredError,
    ApprovalNotWaitingError,
    InvalidInputError,
)


async def test_an_interruption_can_be_raised(engine: Any, new_id: str) -> None:
    agent = Shop().agent(pay(5, "c1"), "done")
    with pytest.raises(InterruptionException) as caught:
        await run_agent_workflow(agent, "Buy", workflow_id=new_id, on_interruption="raise")
    assert (caught.value.run_id, len(caught.value.interruptions)) == (new_id, 1)
    with pytest.raises(InterruptionException, match="pay"):
        await run_agent(Shop().agent(pay(5, "c1")), "Buy", on_interruption="raise")
    with pytest.raises(InvalidInputError, match="later"):
        await run_agent_workflow(agent, "Buy", on_interruption="later")  # type: ignore[arg-type] - refused


async def test_a_question_gets_its_answer(engine: Any, new_id: str) -> None:
    question = function_call("ask_user", {"question": "Which?", "choices": ["red", "blue"]}, call_id="q1")
    agent = Agent(name="asker", model=Turns(question, "thanks"), tools=[ask_user])
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    [asked] = await list_approvals(new_id)
    assert (asked.kind, asked.details) == ("question", {"question": "Which?", "choices": ["red", "blue"]})

    with pytest.raises(InvalidInputError, match="choices"):
        await answer(new_id, "green", by="alice")
    with pytest.raises(InvalidInputError, match="question"):
        await approve(new_id, "q1", by="alice")
    await answer(new_id, "blue", by="alice")

    assert (await wait_run(new_id)).output == "thanks"
    assert agent.model.seen == ["blue"]  # type: ignore[union-attr] - it is a Turns


async def test_cancelled_while_it_waits_it_cannot_be_decided_until_it_waits_again(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    await asyncio.to_thread(cancel_run, launched().connector, new_id)
    with pytest.raises(ApprovalNotWaitingError, match="cancelled"):
        await approve(new_id, "c1", by="alice")

    await asyncio.to_thread(resume_run, launched().connector, new_id)
    await approve(new_id, "c1", by="alice")
    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["pay 5"]


async def test_a_queued_run_is_followed_over_its_interruption(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    register_agents(agent)
    handle = queue_agent_workflow(agent, "Buy", workflow_id=new_id)
    await asyncio.to_thread(engine.wait_for_status, new_id, "interrupted")
    waiting = asyncio.ensure_future(_result(handle))
    await approve(new_id, "c1", by="alice")
    assert (await waiting).output == "done"
    queues = engine.query(
        "select queue_name, workflow_uuid from dbos.workflow_status where workflow_uuid like %s order by 2",
        new_id + "%",
    )
    assert [row["queue_name"] for row in queues] == ["timestep_agent_queue", "timestep_segments"]


async def _result(handle: Any) -> Any:
    return await handle.get_result()


async def test_a_queued_continuation_runs_the_next_segment(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    state.approve(state.get_interruptions()[0])
    handle = queue_agent_workflow(agent, state)
    assert (await handle.get_result()).output == "done"
    assert (handle.run_id, shop.done) == (new_id, ["pay 5"])


async def test_what_nobody_decides_in_time_is_rejected(engine: Any, new_id: str) -> None:
    shop = Shop()
    tool_policy(shop.pay, approval_expires_seconds=0.3)
    agent = shop.agent(pay(5, "c1"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)

    assert (await wait_run(new_id)).output == "done"
    assert shop.done == []
    assert "in time" in agent.model.seen[0]  # type: ignore[union-attr] - it is a Turns
    assert engine.value("select status from timestep.approvals where run_id = %s", new_id) == "expired"
    with pytest.raises(ApprovalExpiredError):
        await approve(new_id, "c1", by="late")


async def test_what_nobody_decides_in_time_fails_the_run_when_asked_and_waits_again(engine: Any, new_id: str) -> None:
    shop = Shop()
    tool_policy(shop.pay, approval_expires_seconds=0.3, on_expiry="fail")
    agent = shop.agent(pay(5, "c1"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    with pytest.raises(ApprovalExpiredError, match="pay"):
        await wait_run(new_id)

    await asyncio.to_thread(resume_run, launched().connector, new_id)
    await approve(new_id, "c1", by="alice")
    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["pay 5"]


async def test_a_state_decides_again_what_has_failed_for_want_of_a_decision(engine: Any, new_id: str) -> None:
    shop = Shop()
    tool_policy(shop.pay, approval_expires_seconds=0.3, on_expiry="fail")
    agent = shop.agent(pay(5, "c1"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    with pytest.raises(ApprovalExpiredError):
        await wait_run(new_id)

    state.approve(state.get_interruptions()[0])
    assert (await run_agent_workflow(agent, state)).output == "done"
    assert shop.done == ["pay 5"]
    assert engine.value("select status from timestep.approvals where run_id = %s", new_id) == "approved"


async def test_a_workflow_of_the_program_sees_the_same_interruption_on_replay(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    seen: list[tuple[str, str, Any]] = []

    @DBOS.workflow(name=f"parent-{new_id}")
    async def parent() -> str:
        result = await run_agent_workflow(agent, "Buy", workflow_id=f"child-{new_id}")
        seen.append((result.status, result.interruptions[0].tool_name, result.segment))
        state = result.to_state()
        state.approve(state.get_interruptions()[0])
        result = await run_agent_workflow(agent, state)
        return result.output

    with SetWorkflowID(new_id):
        assert await parent() == "done"
    with SetWorkflowID(f"copy-{new_id}"):
        handle = await DBOS.fork_workflow_async(new_id, 100)
    assert await handle.get_result() == "done"

    assert seen == [("interrupted", "pay", 1)] * 2
    assert shop.done == ["pay 5"]
    assert engine.status(f"child-{new_id}") == "succeeded"


async def test_a_program_waits_for_a_segment_that_goes_on_from_a_journal(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(1, "c1"), look("a", "c2"), look("b", "c3"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id, limits=RunLimits(max_turns=2))).to_state()
    await approve(new_id, "c1", by="alice")
    await asyncio.to_thread(engine.wait_for_status, new_id, "interrupted")
    [asked] = await list_approvals(new_id)
    assert asked.kind == "limit"
    engine.query("update dbos.queues set polling_interval_sec = 3 where name = 'timestep_segments'")
    try:
        await raise_limits(new_id, RunLimits(max_turns=9), by="alice")
        state.approve(state.get_interruptions()[0])
        result = await run_agent_workflow(agent, state)
    finally:
        engine.query("update dbos.queues set polling_interval_sec = 0.25 where name = 'timestep_segments'")
    assert (result.output, shop.done) == ("done", ["pay 1", "look a", "look b"])


async def test_what_is_cancelled_before_its_copy_is_made_can_be_resumed(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(look("a", "c1"), look("b", "c2"), "done")
    register_agents(agent)
    await run_agent_workflow(agent, "Look", workflow_id=new_id, limits=RunLimits(max_turns=1))
    connector = launched().connector
    await raise_limits(new_id, RunLimits(max_turns=9), by="alice")
    await asyncio.to_thread(cancel_run, connector, new_id)
    await asyncio.to_thread(resume_run, connector, new_id)
    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["look a", "look b"]


async def test_a_run_that_was_parked_before_its_first_step_goes_on_under_another_version(
    engine: Any, new_id: str
) -> None:
    shop = Shop()
    agent = shop.agent(pay(1, "c1"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    tools, agent.tools = agent.tools, []
    await approve(new_id, "c1", by="alice")
    await asyncio.to_thread(engine.wait_for_status, new_id, "interrupted")
    assert engine.run(new_id)["reason"] == "snapshot_mismatch_error"
    agent.tools = tools
    older = "update dbos.workflow_status set application_version = 'older:1:0' where workflow_uuid = %s"
    engine.query(older, f"{new_id}~2")

    await asyncio.to_thread(resume_run, launched().connector, new_id)
    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["pay 1"]
