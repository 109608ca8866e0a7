"""A long run is a chain of segments: it goes on by itself after a number of turns, with a snapshot in between."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, MaxTurnsExceeded, function_tool
from agents.testing import function_call
from turns import Turns

from timestep import Session, approve, register_agents, run_agent_workflow, wait_run
from timestep.durable.segment import run
from timestep.settings import current_settings


@pytest.fixture(autouse=True)
def _short_segments(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(current_settings()), "max_turns_per_segment", 3)


def counting(done: list[int], *, turns: int, needs_approval_at: int = 0) -> Agent[Any]:
    async def is_needed(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return arguments["number"] == needs_approval_at

    @function_tool(needs_approval=is_needed)
    async def work(number: int) -> str:
        done.append(number)
        return f"did {number}"

    calls = [function_call("work", {"number": number}, call_id=f"c{number}") for number in range(1, turns + 1)]
    return Agent(name="worker", model=Turns(*calls, "done"), tools=[work])


async def test_a_long_run_goes_on_in_new_segments_and_nobody_notices(engine: Any, new_id: str) -> None:
    done: list[int] = []
    agent = counting(done, turns=7)
    register_agents(agent)
    session = Session()
    result = await run_agent_workflow(agent, "Go", session, workflow_id=new_id, max_turns=20)

    assert (result.output, done, agent.model.count) == ("done", list(range(1, 8)), 8)  # type: ignore[union-attr]
    assert engine.run(new_id)["segment"] == 3
    assert len(result.new_items) == 15
    assert result.usage.requests == 8
    assert len(await session.get_items()) == 16
    assert engine.value("select count(*) from timestep.usage where run_id = %s", new_id) == 8
    assert engine.value("select count(*) from timestep.tool_calls where run_id = %s", new_id) == 7
    kinds = engine.query("select kind, segment from timestep.run_states where run_id = %s", new_id)
    assert [(row["kind"], row["segment"]) for row in kinds] == [("final", 3)]
    for segment in ("", "~2", "~3"):
        assert len(engine.steps(new_id + segment)) <= 6


async def test_segments_are_shorter_where_the_history_is_long_and_end_there_again_in_a_replay(
    engine: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FULL_SEGMENTS_TURNS", 3)
    done: list[int] = []
    agent = counting(done, turns=7)
    register_agents(agent)
    result = await run_agent_workflow(agent, "Go", workflow_id=new_id, max_turns=20)

    assert (result.output, done) == ("done", list(range(1, 8)))
    turns = "select segment, count(*)::int as turns from timestep.usage where run_id = %s group by 1 order by 1"
    assert [(row["segment"], row["turns"]) for row in engine.query(turns, new_id)] == [(1, 3), (2, 3), (3, 1), (4, 1)]
    assert [run._turns_of_segment(50, before=before) for before in (0, 3, 4, 15, 1000)] == [50, 50, 37, 10, 1]  # pyright: ignore[reportPrivateUsage]


async def test_the_snapshot_of_an_interruption_stays(engine: Any, new_id: str) -> None:
    done: list[int] = []
    agent = counting(done, turns=7, needs_approval_at=5)
    register_agents(agent)
    result = await run_agent_workflow(agent, "Go", workflow_id=new_id, max_turns=20)
    assert (result.status, done, result.segment) == ("interrupted", [1, 2, 3, 4], 2)
    await approve(new_id, "c5", by="alice")

    assert (await wait_run(new_id)).output == "done"
    assert done == [1, 2, 3, 4, 5, 6, 7]
    query = "select kind, segment from timestep.run_states where run_id = %s order by id"
    kinds = [(row["kind"], row["segment"]) for row in engine.query(query, new_id)]
    assert kinds[0] == ("interrupted", 2)
    assert [kind for kind, _ in kinds] == ["interrupted", "final"]


async def test_the_limit_of_turns_counts_over_the_segments(engine: Any, new_id: str) -> None:
    done: list[int] = []
    agent = counting(done, turns=20)
    register_agents(agent)
    with pytest.raises(MaxTurnsExceeded):
        await run_agent_workflow(agent, "Go", workflow_id=new_id, max_turns=8)
    assert done == list(range(1, 9))


async def test_a_handoff_is_remembered_over_segments(engine: Any, new_id: str) -> None:
    done: list[int] = []
    worker = counting(done, turns=7)
    calls = function_call("transfer_to_worker", {}, call_id="h1")
    front = Agent(name="front", model=Turns(calls), handoffs=[worker])
    register_agents(front)
    result = await run_agent_workflow(front, "Go", workflow_id=new_id, max_turns=20)
    assert (result.output, result.last_agent.name, done) == ("done", "worker", list(range(1, 8)))
