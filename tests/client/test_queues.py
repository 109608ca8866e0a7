"""Queued runs of one session run one at a time and in their order: the rows alone, with nothing launched."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from timestep.client.connector import Connector
from timestep.client.queues import enqueue_run, enqueue_runs, queued_run
from timestep.client.runs import cancel_run, resume_run
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.records import QueuedRun, RunRequest
from timestep.runtime.chores import Chores
from timestep.store.connection import open_database
from timestep.store.due import find_due
from timestep.store.segments import Closing, close_segment, enqueue_segment, start_segment

SEEDS = int(os.environ.get("TIMESTEP_ORDER_SEEDS", "6"))
STEPS = 60


class Line:
    """A database whose runs are started and ended by hand."""

    def __init__(self, connector: Connector, journal: Any) -> None:
        self.connector, self.journal = connector, journal
        self.database, self.client = connector.database, connector.dbos
        self.chores = Chores(connector, executor_id="test", version="test:1:1")

    def queued(self, run_id: str, session: str | None = "s", **options: Any) -> QueuedRun:
        request = RunRequest(run_id=run_id, agent="assistant", input_items="hi", session_id=session)
        return queued_run(request, application="test", **options)

    def queue(self, *run_ids: str, **options: Any) -> None:
        for run_id in run_ids:
            enqueue_run(self.connector, self.queued(run_id, **options))

    def start(self, run_id: str, segment: int = 1) -> bool:
        """Start a segment as a workflow does; return whether it may run."""
        started = self.database.run_sync(
            start_segment, run_id=run_id, segment=segment, request=None, input_digest="", executor_id="test",
            application_version="test:1:1", definition=None,
        )  # fmt: skip
        return not started.is_closed

    def close(self, run_id: str, status: Any = "succeeded", segment: int = 1) -> None:
        closing = Closing(
            run_id=run_id, segment=segment, status=status, reason="approval" if status == "interrupted" else None,
            session_id=None, session_items=[], snapshot=None, output=None, error=None, last_agent=None,
        )  # fmt: skip
        assert self.database.run_sync(close_segment, closing)

    def go_on(self, run_id: str, segment: int) -> None:
        """Queue the next segment of an interrupted run, as `timestep.decide` does."""
        self.journal.query(
            "update timestep.runs set status = 'queued', segment = %s, attempt = 0 where id = %s", segment, run_id
        )
        self.database.run_sync(enqueue_segment, run_id, segment)

    def enqueued(self) -> list[str]:
        """Return the workflows that DBOS may start, in the order in which they came to it."""
        rows = self.journal.query(
            "select workflow_uuid from dbos.workflow_status where status = 'ENQUEUED' order by ctid, workflow_uuid"
        )
        return [row["workflow_uuid"] for row in rows]

    def take(self) -> list[str]:
        """Return what DBOS may start and has not been returned before."""
        found = self.enqueued()
        self.journal.query("update dbos.workflow_status set status = 'PENDING' where status = 'ENQUEUED'")
        return found

    def mend(self) -> None:
        self.chores._tie_loose_ends()  # pyright: ignore[reportPrivateUsage] - due only every ten seconds

    def age(self) -> None:
        minute = "now() - interval '1 minute'"
        self.journal.query(f"update timestep.runs set created_at = {minute}, segment_started_at = {minute}")


@pytest.fixture
def line(server: EmbeddedPostgres, new_database: Callable[[], str], journal_of: Callable[[str], Any]) -> Iterator[Line]:
    name = new_database()
    database = open_database(server.url(name), application="test")
    connector = Connector(database, application="test")
    yield Line(connector, journal_of(name))
    connector.close()
    database.close()


def test_the_next_run_is_enqueued_by_the_end_of_the_one_before_it(line: Line) -> None:
    line.queue("a", "b", "c")
    assert line.take() == ["a"]
    assert line.start("a")
    assert [line.journal.status(run) for run in "abc"] == ["running", "queued", "queued"]

    line.close("a")
    assert line.take() == ["b"]
    line.start("b")
    line.close("b", "failed")
    assert line.take() == ["c"]


def test_sessions_do_not_wait_for_each_other_nor_runs_without_one(line: Line) -> None:
    line.queue("a", "b", session="one")
    line.queue("c", session="two")
    line.queue("d", "e", session=None)
    line.queue("f", session="one", one_at_a_time=None)

    assert sorted(line.take()) == ["a", "c", "d", "e", "f"]


def test_an_interrupted_run_lets_the_next_one_pass_and_goes_on_before_those_behind_it(line: Line) -> None:
    line.queue("a", "b", "c")
    line.take()
    line.start("a")
    line.close("a", "interrupted")
    assert line.take() == ["b"]
    line.start("b")

    line.go_on("a", 2)
    assert (line.take(), line.journal.status("a")) == ([], "queued")
    line.close("b")
    assert line.take() == ["a~2"]
    line.start("a", 2)
    line.close("a", segment=2)
    assert line.take() == ["c"]


def test_a_run_that_goes_on_in_a_free_session_starts_at_once(line: Line) -> None:
    line.queue("a")
    line.take()
    line.start("a")
    line.close("a", "interrupted")
    line.go_on("a", 2)

    assert line.take() == ["a~2"]


def test_the_next_segment_of_a_long_run_does_not_give_the_session_away(line: Line) -> None:
    line.queue("a", "b")
    line.take()
    line.start("a")
    closing = Closing(
        run_id="a", segment=1, status="running", reason=None, session_id=None, session_items=[], snapshot=None,
        output=None, error=None, last_agent=None, continues=True,
    )  # fmt: skip
    line.database.run_sync(close_segment, closing)

    assert line.take() == ["a~2"]


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_cancelled_run_gives_its_session_to_the_next(line: Line, state: str) -> None:
    line.queue("a", "b", "c")
    line.take()
    if state == "running":
        line.start("a")
    cancel_run(line.connector, "b")
    cancel_run(line.connector, "a")

    assert line.take() == ["c"]


def test_a_run_that_was_cancelled_while_it_waited_starts_when_it_is_resumed_and_its_turn_comes(line: Line) -> None:
    line.queue("a")
    line.queue("b", priority=7)
    line.take()
    line.start("a")
    cancel_run(line.connector, "b")
    resume_run(line.connector, "b")
    assert line.take() == []

    line.close("a")
    assert line.take() == ["b"]
    assert line.journal.value("select priority from dbos.workflow_status where workflow_uuid = 'b'") == 7


def test_a_failed_run_that_is_resumed_waits_for_its_session_and_starts_from_a_copy(line: Line) -> None:
    line.queue("a", "b")
    line.take()
    line.start("a")
    line.close("a", "failed")
    line.take()
    line.start("b")
    resume_run(line.connector, "a")
    assert (line.take(), line.journal.status("a")) == ([], "queued")

    line.close("b")
    assert line.take() == ["a~2~copy"]


def test_a_cancelled_run_that_is_resumed_into_a_busy_session_is_resumed_by_an_executor(line: Line) -> None:
    line.queue("a", "b")
    line.take()
    line.start("a")
    cancel_run(line.connector, "a")
    line.take()
    line.start("b")
    resume_run(line.connector, "a")
    line.age()
    for _ in range(3):
        line.mend()
    assert line.take() == [], "it waits"

    line.close("b")
    line.mend()
    line.mend()
    assert line.take() == ["a"]


def test_a_run_that_waits_does_not_run_when_somebody_starts_its_workflow(line: Line) -> None:
    line.queue("a", "b")

    assert not line.start("b")
    assert line.start("a")


def test_a_delayed_run_lets_others_pass_and_starts_when_its_time_has_come(line: Line) -> None:
    line.queue("late", delay_seconds=3600)
    line.queue("a", "b")
    assert line.take() == ["a"]

    for table in ("runs", "session_queue"):
        line.journal.query(f"update timestep.{table} set start_after = now() where start_after is not null")
    line.database.run_sync(find_due)
    assert line.take() == [], "a has the session"
    line.start("a")
    line.close("a")
    assert line.take() == ["late"]


def test_a_delay_that_is_over_starts_the_run_of_a_free_session(line: Line) -> None:
    line.queue("late", delay_seconds=3600)
    assert line.database.run_sync(find_due).overdue == []
    assert line.take() == []

    for table in ("runs", "session_queue"):
        line.journal.query(f"update timestep.{table} set start_after = now() where start_after is not null")
    assert line.database.run_sync(find_due).overdue == []
    assert line.take() == ["late"]


def test_a_batch_of_many_sessions_keeps_the_order_of_each(line: Line) -> None:
    runs = [line.queued(f"{number}-{session}", session=session) for number in range(4) for session in ("x", "y", "z")]
    enqueue_runs(line.connector, runs)

    seen: list[str] = []
    while taken := line.take():
        seen += taken
        for run_id in taken:
            line.start(run_id)
            line.close(run_id)
    assert [each for each in seen if each.endswith("x")] == ["0-x", "1-x", "2-x", "3-x"]
    assert len(seen) == 12


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param("delete from timestep.session_queue where run_id = 'a'", id="the holder's place"),
        pytest.param("delete from timestep.runs where id = 'a'", id="the holder"),
        pytest.param(
            "set session_replication_role = replica; update timestep.runs set status = 'failed' where id = 'a'",
            id="the trigger",
        ),
    ],
)
def test_the_next_run_starts_after_a_loss(line: Line, loss: str) -> None:
    line.queue("a", "b")
    line.take()
    for statement in loss.split(";") if "set session" not in loss else [loss]:
        with line.journal.server.connect(line.journal.name, autocommit=True) as connection:
            connection.execute(statement.encode())
    if "session_queue" in loss:
        line.journal.query("update timestep.runs set status = 'succeeded' where id = 'a'")
    line.mend()

    assert line.take() == ["b"]


def test_a_first_segment_that_was_lost_is_enqueued_again(line: Line) -> None:
    line.queue("a", "b")
    line.journal.query("delete from dbos.workflow_status")
    line.age()
    line.mend()
    line.mend()

    assert line.take() == ["a"]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_a_session_runs_one_at_a_time_and_all_runs_end(line: Line, seed: int) -> None:
    """Random queueing, ends, interruptions, cancels, resumes and sweeps."""
    dice = random.Random(seed)
    segments: dict[str, int] = {}
    running: dict[str, set[str]] = {"x": set(), "y": set()}
    session_of: dict[str, str] = {}
    ended: list[str] = []

    def work(is_last: bool = False) -> None:
        for workflow in line.take():
            run_id, _, number = workflow.removesuffix("~copy").partition("~")
            segments[run_id] = int(number or 1)
            if line.journal.status(run_id) == "queued" and line.start(run_id, segments[run_id]):
                running[session_of[run_id]].add(run_id)
        for session, runs in running.items():
            assert len(runs) <= 1, f"seed {seed}: {runs} at once in {session}"
        for session, runs in running.items():
            if runs and (is_last or dice.random() < 0.6):
                run_id = runs.pop()
                status = "succeeded" if is_last else dice.choice(["succeeded", "succeeded", "failed", "interrupted"])
                line.close(run_id, status, segments[run_id])
                ended.append(run_id)
                del session

    for step in range(STEPS):
        match dice.choice(["queue", "queue", "work", "work", "work", "go on", "cancel", "resume", "mend"]):
            case "queue":
                run_id = f"{seed}-{step:02}"
                session_of[run_id] = dice.choice("xy")
                line.queue(run_id, session=session_of[run_id])
            case "work":
                work()
            case "go on":
                waiting = line.journal.query("select id, segment from timestep.runs where status = 'interrupted'")
                for row in waiting[:1]:
                    line.go_on(row["id"], row["segment"] + 1)
            case "cancel":
                for row in line.journal.query(
                    "select id, session_id from timestep.runs where status in ('queued', 'running') order by random()"
                )[:1]:
                    cancel_run(line.connector, row["id"])
                    running[row["session_id"]].discard(row["id"])
            case "resume":
                for row in line.journal.query(
                    "select id from timestep.runs where status in ('failed', 'cancelled') "
                    "and closed_segment < segment + (status = 'failed')::int order by random()"
                )[:1]:
                    resume_run(line.connector, row["id"])
            case _:
                line.age()
                line.mend()
    for row in line.journal.query("select id, segment from timestep.runs where status = 'interrupted'"):
        line.go_on(row["id"], row["segment"] + 1)
    for _ in range(4 * STEPS):
        line.age()
        line.mend()
        work(is_last=True)
        if not line.journal.query("select 1 from timestep.runs where status in ('queued', 'running')"):
            break
    assert line.journal.query("select id, status from timestep.runs where status in ('queued', 'running')") == []
    assert line.journal.query("select * from timestep.session_queue") == []


def test_two_that_queue_for_the_same_sessions_do_not_block_each_other(line: Line, until: Any) -> None:
    def queue(name: str, order: int) -> None:
        sessions = [f"session-{number}" for number in range(40)][::order]
        for batch in range(3):
            runs = [line.queued(f"{name}-{batch}-{session}", session=session) for session in sessions]
            enqueue_runs(line.connector, runs)

    threads = [threading.Thread(target=queue, args=(name, order)) for name, order in (("up", 1), ("down", -1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert line.journal.value("select count(*) from timestep.runs") == 240
    assert line.journal.value("select count(*) from timestep.session_queue where not is_waiting") == 40
