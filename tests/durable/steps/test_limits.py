"""The limits of a run: before a model call that would go over one, it waits for a person, or fails."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import function_call
from agents.usage import Usage
from turns import Turns

from timestep import (
    RunLimits,
    approve,
    list_approvals,
    raise_limits,
    register_agents,
    reject,
    run_agent_workflow,
    wait_run,
)
from timestep.durable.journal.scope import Record, Segment
from timestep.durable.steps.limits import used_by
from timestep.errors import InvalidInputError, LimitReachedError, UnsupportedError
from timestep.store.segments import Used


def counting(done: list[int], *, turns: int) -> Agent[Any]:
    """An agent that calls `work` in each of its first turns."""

    @function_tool
    async def work(number: int) -> str:
        done.append(number)
        return f"did {number}"

    calls = [function_call("work", {"number": number}, call_id=f"c{number}") for number in range(1, turns + 1)]
    return Agent(name="worker", model=Turns(*calls, "done"), tools=[work])


@pytest.mark.parametrize(
    "limits",
    [RunLimits(max_turns=2), RunLimits(max_tool_calls=2), RunLimits(max_tokens=4)],
    ids=["turns", "calls", "tokens"],
)
async def test_at_a_limit_the_run_waits_and_goes_on_when_it_is_raised(
    engine: Any, new_id: str, limits: RunLimits
) -> None:
    done: list[int] = []
    agent = counting(done, turns=3)
    result = await run_agent_workflow(agent, "Go", workflow_id=new_id, limits=limits)
    [asked] = result.interruptions
    assert (result.status, done, agent.model.count) == ("interrupted", [1, 2], 2)  # type: ignore[union-attr]
    assert (asked.kind, asked.details["used"]) == ("limit", asked.details["value"])
    with pytest.raises(UnsupportedError, match=new_id):
        result.to_state()
    with pytest.raises(InvalidInputError, match=asked.details["limit"]):
        await raise_limits(new_id, RunLimits(max_seconds=5), by="alice")
    await raise_limits(new_id, RunLimits(**{asked.details["limit"]: 100}), by="alice")

    assert (await wait_run(new_id)).output == "done"
    assert (done, agent.model.count) == ([1, 2, 3], 4)  # type: ignore[union-attr] - it is a Turns
    assert engine.value("select count(*) from timestep.usage where run_id = %s", new_id) == 4
    assert engine.value("select count(*) from timestep.tool_calls where run_id = %s", new_id) == 3
    assert engine.run(new_id)["input_tokens"] == 4


async def test_at_a_limit_the_run_fails_when_asked(engine: Any, new_id: str) -> None:
    done: list[int] = []
    agent = counting(done, turns=3)
    with pytest.raises(LimitReachedError, match="max_turns=2"):
        await run_agent_workflow(agent, "Go", workflow_id=new_id, limits=RunLimits(max_turns=2, on_limit="fail"))
    assert (engine.status(new_id), done) == ("failed", [1, 2])


async def test_a_limit_that_nobody_raises_fails_the_run(engine: Any, new_id: str) -> None:
    await run_agent_workflow(counting([], turns=3), "Go", workflow_id=new_id, limits=RunLimits(max_turns=2))
    await reject(new_id, by="alice", reason="Enough")
    with pytest.raises(LimitReachedError, match="Enough"):
        await wait_run(new_id)


async def test_a_limit_counts_the_turns_of_sub_agents_and_stops_inside_them(engine: Any, new_id: str) -> None:
    done: list[int] = []
    inner = counting(done, turns=3)
    tool = inner.as_tool(tool_name="inner", tool_description="Works")
    model = Turns(function_call("inner", {"input": "go"}, call_id="top"), "all done")
    outer = Agent(name="outer", model=model, tools=[tool])
    register_agents(outer)
    await run_agent_workflow(outer, "Go", workflow_id=new_id, limits=RunLimits(max_turns=3))
    assert (done, inner.model.count) == ([1, 2], 2)  # type: ignore[union-attr] - it is a Turns
    await raise_limits(new_id, RunLimits(max_turns=5), by="alice")
    await raise_limits_when_asked(engine, new_id, RunLimits(max_turns=10))

    assert (await wait_run(new_id)).output == "all done"
    assert (done, inner.model.count, model.count) == ([1, 2, 3], 4, 2)  # type: ignore[union-attr] - it is a Turns


async def raise_limits_when_asked(engine: Any, run_id: str, limits: RunLimits) -> None:
    engine.wait_for_status(run_id, "interrupted")
    await raise_limits(run_id, limits, by="alice")


async def test_a_limit_counts_over_interruptions(engine: Any, new_id: str) -> None:
    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    calls = [function_call("pay", {}, call_id=f"c{number}") for number in (1, 2)]
    agent = Agent(name="shop", model=Turns(*calls, "done"), tools=[pay])
    await run_agent_workflow(agent, "Go", workflow_id=new_id, limits=RunLimits(max_turns=2))
    await approve(new_id, "c1", by="alice")
    engine.wait_for_status(new_id, "interrupted")
    [asked] = await list_approvals(new_id)
    assert asked.kind == "approval"
    await approve(new_id, "c2", by="alice")
    engine.wait_for_status(new_id, "interrupted")
    [asked] = await list_approvals(new_id)
    assert (asked.kind, asked.details["used"]) == ("limit", 2)
    await raise_limits(new_id, RunLimits(max_turns=3), by="alice")
    assert (await wait_run(new_id)).output == "done"


async def test_an_unknown_price_is_no_price_of_zero(engine: Any, new_id: str) -> None:
    done: list[int] = []
    agent = counting(done, turns=2)
    await run_agent_workflow(agent, "Go", workflow_id=new_id, limits=RunLimits(max_cost_micro_usd=1_000_000))
    [asked] = await list_approvals(new_id)
    assert (asked.details["limit"], done) == ("max_cost_micro_usd", [1])
    assert "not known" in asked.details["message"]
    await raise_limits(new_id, RunLimits(max_cost_micro_usd=2_000_000), by="alice")
    assert (await wait_run(new_id)).output == "done"
    assert done == [1, 2]


@pytest.mark.parametrize(
    "bad",
    [{"max_turns": 0}, {"max_tokens": -1}, {"max_seconds": "5"}, {"max_seconds": float("nan")}, {"on_limit": "stop"}],
)
def test_a_limit_that_is_none_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        RunLimits(**bad)


def test_the_seconds_of_a_segment_count_over_a_crash() -> None:
    finished = {"envelope": {"attempt": 1, "seconds": 2.0, "used": {"max_seconds": 40.0}}, "usage": Usage()}
    record = Record(model_turns=[finished])
    again = Segment(run_id="run", attempt=2, max_result_bytes=1, record=record, used=Used(seconds=5.0))
    assert 42 <= used_by(again).seconds < 50
    first = Segment(run_id="run", attempt=1, max_result_bytes=1, record=record, used=Used(seconds=5.0))
    assert used_by(first).seconds < 10
