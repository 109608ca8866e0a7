"""A run waits for a person as rows, anybody decides, and it goes on in its next segment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, ModelResponse, RunContextWrapper, SQLiteSession, function_tool
from agents.testing import function_call
from dbos import DBOS, SetWorkflowID
from turns import Turns

from timestep import (
    ApprovalAlreadyDecided,
    InterruptionException,
    RunLimits,
    RunStateStore,
    Session,
    SnapshotAlreadyResumed,
    approve,
    ask_user,
    list_approvals,
    queue_agent_workflow,
    raise_limits,
    register_agents,
    reject,
    run_agent,
    run_agent_workflow,
    tool_policy,
    wait_run,
)
from timestep.client.decide import answer
from timestep.client.runs import cancel_run, resume_run
from timestep.durable.process.engine import engine as launched
from timestep.errors import (
    AmbiguousCallError,
    ApprovalChangedError,
    ApprovalExpiredError,
    ApprovalNotWaitingError,
    InvalidInputError,
    SnapshotMismatchError,
)


class Shop:
    """Tools that note what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []

        @function_tool(needs_approval=True)
        async def pay(amount: int) -> str:
            self.done.append(f"pay {amount}")
            return f"paid {amount}"

        @function_tool
        async def look(thing: str) -> str:
            self.done.append(f"look {thing}")
            return f"saw {thing}"

        self.pay, self.look = pay, look

    def agent(self, *turns: Any, name: str = "shop", **options: Any) -> Agent[Any]:
        return Agent(name=name, model=Turns(*turns), tools=[self.pay, self.look], **options)


def pay(amount: int, call_id: str) -> Any:
    return function_call("pay", {"amount": amount}, call_id=call_id)


def look(thing: str, call_id: str) -> Any:
    return function_call("look", {"thing": thing}, call_id=call_id)


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


async def test_mixed_decisions_from_the_desk_run_what_was_approved_once(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent([pay(1, "c1"), look("box", "c2"), pay(3, "c3"), pay(4, "c4")], "done")
    waiting = asyncio.ensure_future(run_agent_workflow(agent, "Buy", workflow_id=new_id, on_interruption="wait"))
    await asyncio.to_thread(engine.wait_for_status, new_id, "interrupted")
    assert [each.call_id for each in await list_approvals(new_id)] == ["c1", "c3", "c4"]

    await approve(new_id, "c3", by="alice")
    await reject(new_id, "c1", by="alice", reason="Not that one")
    assert engine.status(new_id) == "interrupted"
    await approve(new_id, "c4", by="bob")
    result = await waiting

    assert result.output == "done"
    assert sorted(shop.done) == ["look box", "pay 3", "pay 4"]
    assert sorted(agent.model.seen) == ["Not that one", "paid 3", "paid 4", "saw box"]  # type: ignore[union-attr]
    with pytest.raises(ApprovalAlreadyDecided, match="alice"):
        await approve(new_id, "c1", by="eve")


async def test_an_interruption_can_be_raised(engine: Any, new_id: str) -> None:
    agent = Shop().agent(pay(5, "c1"), "done")
    with pytest.raises(InterruptionException) as caught:
        await run_agent_workflow(agent, "Buy", workflow_id=new_id, on_interruption="raise")
    assert (caught.value.run_id, len(caught.value.interruptions)) == (new_id, 1)
    with pytest.raises(InterruptionException, match="pay"):
        await run_agent(Shop().agent(pay(5, "c1")), "Buy", on_interruption="raise")
    with pytest.raises(InvalidInputError, match="later"):
        await run_agent_workflow(agent, "Buy", on_interruption="later")  # type: ignore[arg-type] - refused


async def test_always_holds_for_the_rest_of_the_run(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent([pay(1, "c1"), pay(2, "c2")], pay(3, "c3"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    await approve(new_id, "c1", by="alice", always=True)

    assert (await wait_run(new_id)).output == "done"
    assert sorted(shop.done[:2]) + shop.done[2:] == ["pay 1", "pay 2", "pay 3"]


async def test_always_rejected_never_runs_in_the_run(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(1, "c1"), pay(2, "c2"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    await reject(new_id, "c1", by="alice", always=True, reason="Never")

    assert (await wait_run(new_id)).output == "done"
    assert shop.done == []
    assert agent.model.seen == ["Never", "Never"]  # type: ignore[union-attr] - it is a Turns


async def test_a_handed_off_agent_is_interrupted_and_goes_on(engine: Any, new_id: str) -> None:
    shop = Shop()
    cashier = shop.agent(pay(5, "c1"), "paid", name="cashier")
    front = Agent(name="front", model=Turns(function_call("transfer_to_cashier", {}, call_id="h1")), handoffs=[cashier])
    result = await run_agent_workflow(front, "Buy", workflow_id=new_id)
    assert result.interruptions[0].agent.name == "cashier"
    assert engine.value("select agent from timestep.approvals where run_id = %s", new_id) == "cashier"

    await approve(new_id, "c1", by="alice")
    result = await wait_run(new_id)
    assert (result.output, result.last_agent.name, shop.done) == ("paid", "cashier", ["pay 5"])


def nested(shop: Shop, *, depth: int, amount: int, name: str) -> Agent[Any]:
    agent = shop.agent(pay(amount, f"{name}-pay"), f"{name} paid", name=f"{name}0")
    for level in range(1, depth + 1):
        tool = agent.as_tool(tool_name=f"{name}{level}_tool", tool_description="Pays")
        call = function_call(tool.name, {"input": "go"}, call_id=f"{name}-{level}")
        agent = Agent(name=f"{name}{level}", model=Turns(call, f"{name}{level} done"), tools=[tool])
    return agent


@pytest.mark.parametrize("depth", [1, 2])
async def test_an_agent_used_as_a_tool_is_interrupted_and_goes_on(engine: Any, new_id: str, depth: int) -> None:
    shop = Shop()
    agent = nested(shop, depth=depth, amount=5, name="n")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    await approve(new_id, "n-pay", by="alice")

    assert (await wait_run(new_id)).output == f"n{depth} done"
    assert shop.done == ["pay 5"]
    assert engine.value("select count(*) from timestep.usage where run_id = %s", new_id) == 2 * (depth + 1)


async def test_parallel_nested_agents_wait_together(engine: Any, new_id: str) -> None:
    shop = Shop()
    one, two = (nested(shop, depth=1, amount=amount, name=name) for amount, name in ((1, "a"), (2, "b")))
    tools = [each.as_tool(tool_name=f"{each.name}_top", tool_description="Pays") for each in (one, two)]
    calls = [function_call(tool.name, {"input": "go"}, call_id=tool.name) for tool in tools]
    top = Agent(name="top", model=Turns(calls, "all done"), tools=[*tools])
    await run_agent_workflow(top, "Buy", workflow_id=new_id)
    assert sorted(each.call_id for each in await list_approvals(new_id)) == ["a-pay", "b-pay"]

    await reject(new_id, "a-pay", by="alice", reason="No")
    await approve(new_id, "b-pay", by="alice")
    assert (await wait_run(new_id)).output == "all done"
    assert shop.done == ["pay 2"]


async def test_a_callable_decides_what_needs_approval(engine: Any, new_id: str) -> None:
    done: list[int] = []

    async def is_large(context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str) -> bool:
        return arguments["amount"] > 100

    @function_tool(needs_approval=is_large, name_override="pay")
    async def pay_some(amount: int) -> str:
        done.append(amount)
        return "paid"

    agent = Agent(name="shop", model=Turns([pay(5, "c1"), pay(500, "c2")], "done"), tools=[pay_some])
    result = await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    assert ([item.call_id for item in result.interruptions], done) == (["c2"], [5])
    await approve(new_id, "c2", by="alice")
    await wait_run(new_id)
    assert done == [5, 500]


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


async def test_two_open_calls_with_one_id_are_told_apart_by_their_approvals(engine: Any, new_id: str) -> None:
    shop = Shop()
    agents = [shop.agent(pay(amount, "same"), "paid", name=f"n{amount}") for amount in (1, 2)]
    tools = [each.as_tool(tool_name=f"{each.name}_tool", tool_description="Pays") for each in agents]
    calls = [function_call(tool.name, {"input": "go"}, call_id=tool.name) for tool in tools]
    await run_agent_workflow(Agent(name="top", model=Turns(calls, "done"), tools=[*tools]), "Buy", workflow_id=new_id)
    asked = await list_approvals(new_id)
    with pytest.raises(AmbiguousCallError, match=asked[0].id):
        await approve(new_id, "same", by="alice")

    by_agent = {each.agent: each.id for each in asked}
    await approve(new_id, by="alice", approval_id=by_agent["n2"])
    await reject(new_id, by="alice", approval_id=by_agent["n1"])
    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["pay 2"]


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


async def test_changed_arguments_are_refused(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent(pay(5, "c1"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    state.approve(state.get_interruptions()[0])
    state._current_step.interruptions[0].raw_item.arguments = '{"amount": 5000}'  # type: ignore[union-attr]
    with pytest.raises(ApprovalChangedError):
        await run_agent_workflow(agent, state)
    with pytest.raises(ApprovalChangedError):
        await approve(new_id, "c1", by="alice", arguments_digest="0" * 64)
    assert (engine.status(new_id), shop.done) == ("interrupted", [])


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


async def test_a_decision_about_one_call_holds_beside_one_about_all(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent([pay(1, "c1"), pay(2, "c2")], pay(3, "c3"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    await reject(new_id, "c1", by="bob", reason="Never")
    await approve(new_id, "c2", by="bob", always=True)
    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["pay 2", "pay 3"]


async def test_a_refusal_of_all_leaves_what_was_approved(engine: Any, new_id: str) -> None:
    shop = Shop()
    agent = shop.agent([pay(1, "c1"), pay(2, "c2")], pay(3, "c3"), "done")
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    await approve(new_id, "c1", by="bob")
    await reject(new_id, "c2", by="bob", always=True, reason="Never")
    assert (await wait_run(new_id)).output == "done"
    assert shop.done == ["pay 1"]


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_a_state_may_decide_about_one_call_and_about_all(engine: Any, new_id: str, *, is_reversed: bool) -> None:
    shop = Shop()
    agent = shop.agent([pay(1, "c1"), pay(2, "c2")], pay(3, "c3"), "done")
    state = (await run_agent_workflow(agent, "Buy", workflow_id=new_id)).to_state()
    first, second = reversed(state.get_interruptions()) if is_reversed else state.get_interruptions()
    state.approve(first, always_approve=True)
    state.reject(second, rejection_message="Never")
    assert (await run_agent_workflow(agent, state)).output == "done"
    assert shop.done == ([f"pay {2 if is_reversed else 1}", "pay 3"])


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
