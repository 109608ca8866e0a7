"""A call that was started and not recorded: repeated, settled by a person, or the end of its run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import function_call
from dbos import DBOS, SetWorkflowID
from turns import Turns

from timestep import (
    RunLimits,
    list_approvals,
    raise_limits,
    reject,
    run_agent,
    run_agent_workflow,
    settle,
    tool_policy,
    wait_run,
)
from timestep.durable.process.engine import engine as launched
from timestep.errors import InvalidInputError, OutcomeUnknownError
from timestep.store.tool_calls import ToolCallRow, reserve_call


def paying(done: list[str], *, on_crash: Any, name: str = "pay") -> Agent[Any]:
    @function_tool(name_override=name)
    async def pay(amount: int) -> str:
        done.append(f"pay {amount}")
        return f"paid {amount}"

    tool_policy(pay, on_crash=on_crash)
    call = function_call(name, {"amount": 5}, call_id="c1")
    return Agent(name="shop", model=Turns(call, "done"), tools=[pay])


async def started_before(run_id: str) -> None:
    """Leave what a process leaves that dies in the middle of the call."""
    call = ToolCallRow(
        run_id=run_id, call_key="1:c1", segment=1, agent="shop", tool="pay", call_id="c1", arguments='{"amount": 5}'
    )
    await launched().database.run(reserve_call, call)


async def waiting(run_id: str, done: list[str]) -> Agent[Any]:
    """Return the agent of a run that waits because the outcome of its call is not known."""
    await started_before(run_id)
    agent = paying(done, on_crash="ask")
    result = await run_agent_workflow(agent, "Buy", workflow_id=run_id)
    assert (result.status, done) == ("interrupted", [])
    [asked] = await list_approvals(run_id)
    assert (asked.kind, asked.tool, asked.arguments) == ("outcome_unknown", "pay", '{"amount": 5}')
    return agent


async def test_what_happened_is_not_done_again(engine: Any, new_id: str) -> None:
    done: list[str] = []
    agent = await waiting(new_id, done)
    await settle(new_id, by="alice", outcome="happened", result="paid 5, receipt 7")

    assert (await wait_run(new_id)).output == "done"
    assert (done, agent.model.seen) == ([], ["paid 5, receipt 7"])  # type: ignore[union-attr] - it is a Turns
    assert agent.model.count == 2  # type: ignore[union-attr] - the finished turn was not asked again
    [row] = engine.query("select * from timestep.tool_calls where run_id = %s", new_id)
    assert (row["result"], row["finished_at"] is not None) == ("paid 5, receipt 7", True)


async def test_what_did_not_happen_runs(engine: Any, new_id: str) -> None:
    done: list[str] = []
    await waiting(new_id, done)
    await settle(new_id, by="alice", outcome="did_not_happen")
    assert (await wait_run(new_id)).output == "done"
    assert done == ["pay 5"]


@pytest.mark.parametrize("verb", [settle, reject], ids=["settled", "rejected"])
async def test_a_run_whose_call_cannot_be_settled_fails(engine: Any, new_id: str, verb: Any) -> None:
    done: list[str] = []
    await waiting(new_id, done)
    await (settle(new_id, by="alice", outcome="fail") if verb is settle else reject(new_id, by="alice"))
    with pytest.raises(OutcomeUnknownError, match="pay"):
        await wait_run(new_id)
    assert done == []


async def test_a_run_may_fail_at_once(engine: Any, new_id: str) -> None:
    done: list[str] = []
    await started_before(new_id)
    with pytest.raises(OutcomeUnknownError, match="c1"):
        await run_agent_workflow(paying(done, on_crash="fail"), "Buy", workflow_id=new_id)
    assert (engine.status(new_id), done) == ("failed", [])


async def test_without_a_crash_a_reserved_call_runs_and_is_recorded_once(engine: Any, new_id: str) -> None:
    done: list[str] = []
    assert (await run_agent_workflow(paying(done, on_crash="ask"), "Buy", workflow_id=new_id)).output == "done"
    [row] = engine.query("select * from timestep.tool_calls where run_id = %s", new_id)
    assert (done, row["result"]) == (["pay 5"], "paid 5")


async def test_parallel_calls_finish_before_the_run_waits(engine: Any, new_id: str) -> None:
    done: list[str] = []
    agent = paying(done, on_crash="ask")

    @function_tool
    async def look() -> str:
        await asyncio.sleep(0.2)
        done.append("look")
        return "seen"

    agent.tools.append(look)
    calls = [function_call("pay", {"amount": 5}, call_id="c1"), function_call("look", {}, call_id="c2")]
    agent.model = Turns(calls, "done")
    await started_before(new_id)
    await run_agent_workflow(agent, "Buy", workflow_id=new_id)
    assert done == ["look"]
    await settle(new_id, by="alice", outcome="happened", result="paid")
    await wait_run(new_id)
    assert done == ["look"]


async def test_a_result_that_is_no_json_is_refused(engine: Any, new_id: str) -> None:
    await waiting(new_id, [])
    with pytest.raises(InvalidInputError):
        await settle(new_id, by="alice", outcome="happened", result=object())
    with pytest.raises(InvalidInputError, match="perhaps"):
        await settle(new_id, by="alice", outcome="perhaps")  # type: ignore[arg-type] - refused
    [approval] = await list_approvals(new_id)
    with pytest.raises(InvalidInputError, match=r"The outcome unknown .* takes another kind of decision"):
        await raise_limits(new_id, RunLimits(max_turns=5), by="alice", approval_id=approval.id)
    assert engine.status(new_id) == "interrupted"


async def test_retries_and_time_limits_are_inside_the_step(engine: Any, new_id: str) -> None:
    tries: list[int] = []

    @function_tool(failure_error_function=None)
    async def shaky() -> str:
        tries.append(len(tries))
        if len(tries) == 1:
            raise ConnectionError("not yet")
        if len(tries) == 2:
            await asyncio.sleep(60)
        return "there"

    tool_policy(shaky, retries=2, timeout_seconds=0.3)
    agent = Agent(name="shop", model=Turns(function_call("shaky", {}, call_id="c1"), "done"), tools=[shaky])
    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "done"
    assert len(tries) == 3
    assert [name.split(":")[0] for name in engine.steps(new_id)] == ["model_turn", "tool_call", "model_turn"]


@pytest.mark.parametrize("bad", [{"on_crash": "pray"}, {"retries": -1}, {"timeout_seconds": 0}, {"on_expiry": "x"}])
def test_a_policy_that_is_none_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        tool_policy("pay", **bad)


async def test_a_workflow_of_the_program_that_cannot_wait_ends_with_the_error(engine: Any, new_id: str) -> None:
    done: list[str] = []
    agent = paying(done, on_crash="ask")

    @DBOS.workflow(name=f"own-{new_id}")
    async def own() -> str:
        return (await run_agent(agent, "Buy")).final_output

    with SetWorkflowID(f"first-{new_id}"):
        assert await own() == "done"
    [key] = engine.query("select call_key from timestep.tool_calls where run_id = %s", f"first-{new_id}")
    call = ToolCallRow(
        run_id=new_id, call_key=key["call_key"], segment=1, agent="shop", tool="pay", call_id="c1", arguments=""
    )
    await launched().database.run(reserve_call, call)
    agent.model.count = 0  # type: ignore[union-attr] - it is a Turns
    with SetWorkflowID(new_id), pytest.raises(OutcomeUnknownError, match="c1"):
        await own()
    assert done == ["pay 5"]
