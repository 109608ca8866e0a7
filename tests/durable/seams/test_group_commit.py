"""Steps that are looked for and recorded together: what one statement settles, and what goes its own way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from dbos._sys_db import SystemDatabase

from timestep import run_agent_workflow
from timestep.durable.process.engine import engine as launched_engine
from timestep.durable.seams import dbos_speed
from timestep.durable.seams.group_commit import MOST_IN_A_ROUND, Rounds
from timestep.errors import RunCancelledError


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


class Door:
    """Asks, one round at a time, when it is opened; settles the even numbers."""

    def __init__(self) -> None:
        self.is_open, self.has_come = threading.Event(), threading.Event()
        self.rounds: list[list[int]] = []

    def __call__(self, asked: Sequence[int]) -> Collection[int]:
        self.rounds.append(list(asked))
        self.has_come.set()
        assert self.is_open.wait(60)
        return {number for number, each in enumerate(asked) if each % 2 == 0}


async def test_what_comes_during_a_round_is_asked_in_the_next_one(pool: ThreadPoolExecutor) -> None:
    door = Door()
    rounds = Rounds(door, pool)
    first = asyncio.create_task(rounds.settle(0))
    await asyncio.to_thread(door.has_come.wait)
    others = [asyncio.create_task(rounds.settle(number)) for number in range(1, MOST_IN_A_ROUND + 2)]
    await asyncio.sleep(0)
    door.is_open.set()

    assert await first
    found = await asyncio.gather(*others)
    assert [at is not None for at in found] == [number % 2 == 0 for number in range(1, MOST_IN_A_ROUND + 2)]
    assert door.rounds == [[0], list(range(1, MOST_IN_A_ROUND + 1)), [MOST_IN_A_ROUND + 1]]
    assert await rounds.settle(2)


async def test_a_round_that_fails_settles_nothing_and_the_next_one_follows(pool: ThreadPoolExecutor) -> None:
    def ask(asked: Sequence[int]) -> Collection[int]:
        if asked == [1]:
            raise ConnectionError("away")
        return range(len(asked))

    rounds = Rounds(ask, pool)
    assert not await rounds.settle(1)
    assert await rounds.settle(2)


async def test_a_cancelled_question_leaves_the_others_their_answers(pool: ThreadPoolExecutor) -> None:
    door = Door()
    rounds = Rounds(door, pool)
    first, second = (asyncio.create_task(rounds.settle(number)) for number in (0, 2))
    await asyncio.to_thread(door.has_come.wait)
    first.cancel()
    door.is_open.set()

    assert await second
    assert first.cancelled()


def test_every_event_loop_has_its_own_answers_and_one_that_has_ended_none(pool: ThreadPoolExecutor) -> None:
    door = Door()
    rounds = Rounds(door, pool)

    async def ask_and_leave() -> None:
        task = asyncio.create_task(rounds.settle(0))
        await asyncio.to_thread(door.has_come.wait)
        task.cancel()

    asyncio.run(ask_and_leave())
    with ThreadPoolExecutor(2) as loops:
        answers = [loops.submit(asyncio.run, rounds.settle(number)) for number in (3, 4)]
        door.is_open.set()
        assert [answer.result(60) is not None for answer in answers] == [False, True]


async def test_a_pool_that_has_ended_is_an_error_each_time(pool: ThreadPoolExecutor) -> None:
    rounds = Rounds(Door(), pool)
    pool.shutdown()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="after shutdown"):
            await rounds.settle(0)


async def test_a_pool_that_ends_before_the_round_begins_leaves_nobody_waiting() -> None:
    pool, is_open = ThreadPoolExecutor(1), threading.Event()
    pool.submit(is_open.wait, 60)
    rounds = Rounds(Door(), pool)
    tasks = [asyncio.create_task(rounds.settle(number)) for number in (0, 2)]
    await asyncio.sleep(0)
    pool.shutdown(wait=False, cancel_futures=True)

    async with asyncio.timeout(60):
        assert await asyncio.gather(*tasks) == [None, None]
    is_open.set()


def agent_with(body: Callable[[], str], *, name: str = "assistant") -> Agent[Any]:
    @function_tool
    def act() -> str:
        return body()

    turns = [[function_call("act", {}, call_id="c1")], [assistant_message("done")]]
    return Agent(name=name, tools=[act], model=ScriptedModel(turns))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the steps that were recorded DBOS's own way."""
    found: list[str] = []
    record = SystemDatabase.record_operation_result

    def noted(self: Any, result: Any, **named: Any) -> None:
        found.append(result["function_name"])
        record(self, result, **named)

    monkeypatch.setattr(SystemDatabase, "record_operation_result", noted)
    return found


async def until(found: Sequence[Any]) -> None:
    async with asyncio.timeout(60):
        while not found:
            await asyncio.sleep(0.01)


async def test_a_row_is_the_one_that_dbos_would_write(
    engine: Any, new_id: str, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_agent_workflow(agent_with(lambda: "ok"), "Go", workflow_id=new_id)
    assert alone == []
    monkeypatch.setattr(dbos_speed, "LARGEST_TOGETHER", 0)
    await run_agent_workflow(agent_with(lambda: "ok"), "Go", workflow_id=f"{new_id}-alone")
    assert alone == ["model_turn:1:assistant", "tool_call:1:act:c1", "model_turn:2:assistant"]

    rows = "select * from dbos.operation_outputs where workflow_uuid = %s order by function_id"
    together, apart = engine.query(rows, new_id), engine.query(rows, f"{new_id}-alone")
    varying = {"workflow_uuid", "output", "started_at_epoch_ms", "completed_at_epoch_ms", "retention_timestamp"}
    assert [{key: row[key] for key in row if key not in varying} for row in together] == [
        {key: row[key] for key in row if key not in varying} for row in apart
    ]
    for row in together:
        assert row["started_at_epoch_ms"] <= row["completed_at_epoch_ms"]
        assert abs(row["retention_timestamp"] - row["completed_at_epoch_ms"]) < 60_000


async def test_many_runs_at_once_record_their_steps_in_few_statements(engine: Any, new_id: str) -> None:
    count, statements = 30, list[int]()

    def noted(*arguments: Any) -> None:
        if "insert into dbos.operation_outputs" in arguments[2].lower():
            statements.append(len(arguments[3]["step_id"]))

    autocommit = launched_engine().database.autocommit_engine
    sa.event.listen(autocommit, "before_cursor_execute", noted)
    try:
        results = await asyncio.gather(
            *(
                run_agent_workflow(agent_with(lambda: "ok", name=f"a{n}"), "Go", workflow_id=f"{new_id}-{n}")
                for n in range(count)
            )
        )
    finally:
        sa.event.remove(autocommit, "before_cursor_execute", noted)

    assert [result.output for result in results] == ["done"] * count
    assert sum(statements) == 3 * count
    assert len(statements) < sum(statements)


async def test_a_workflow_that_somebody_holds_locked_does_not_keep_the_others(
    engine: Any, new_id: str, alone: list[str]
) -> None:
    holder = engine.server.connect(engine.name)

    def lock() -> str:
        holder.execute("select 1 from dbos.workflow_status where workflow_uuid = %s for no key update", [new_id])
        return "ok"

    locked = asyncio.create_task(run_agent_workflow(agent_with(lock), "Go", workflow_id=new_id))
    await until(alone)
    free = await run_agent_workflow(agent_with(lambda: "ok"), "Go", workflow_id=f"{new_id}-free")
    assert free.output == "done"
    assert alone == ["tool_call:1:act:c1"]
    assert not locked.done()
    holder.close()
    assert (await locked).output == "done"


@pytest.mark.usefixtures("quick_chores")
async def test_who_has_lost_the_workflow_records_nothing(engine: Any, new_id: str, alone: list[str]) -> None:
    def lose() -> str:
        engine.query("update dbos.workflow_status set owner_xid = 'another' where workflow_uuid = %s", new_id)
        return "ok"

    task = asyncio.create_task(run_agent_workflow(agent_with(lose), "Go", workflow_id=new_id))
    await until(alone)
    assert alone == ["tool_call:1:act:c1"]
    launched_engine().client.cancel_workflow(new_id)  # else the call would wait for the other's result
    with pytest.raises(RunCancelledError):
        await task
    assert engine.steps(new_id) == ["model_turn:1:assistant"]


async def test_a_record_that_was_committed_and_not_answered_is_known_again(
    engine: Any, new_id: str, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Rounds.settle

    async def unanswered(self: Any, question: Any) -> None:
        assert await settle(self, question)

    monkeypatch.setattr(Rounds, "settle", unanswered)
    result = await run_agent_workflow(agent_with(lambda: "ok"), "Go", workflow_id=new_id)

    assert result.output == "done"
    assert alone == engine.steps(new_id) == ["model_turn:1:assistant", "tool_call:1:act:c1", "model_turn:2:assistant"]
