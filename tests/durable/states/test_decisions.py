"""Decisions on a stored state: one call, all calls of a tool, of nested and handed-off agents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import function_call
from payments import Shop, look, nested, pay
from turns import Turns

from timestep import (
    ApprovalAlreadyDecided,
    approve,
    list_approvals,
    reject,
    run_agent_workflow,
    wait_run,
)
from timestep.errors import (
    AmbiguousCallError,
    ApprovalChangedError,
)


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
