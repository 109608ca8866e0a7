"""The chores of an executor on a database where nothing is launched: runs and workflows as a crash leaves them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import Agent
from agents.testing import ScriptedModel
from stored_runs import close_run, start_run

from timestep.client.connector import Connector
from timestep.client.runs import cancel_run
from timestep.durable.process import engine
from timestep.durable.process.gate import Gate
from timestep.durable.process.registered_agents import register_agents
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.records import Approval, ApprovalKind
from timestep.runtime import chores as chores_module
from timestep.runtime.chores import Chores
from timestep.runtime.executor import Executor
from timestep.settings import current_settings
from timestep.store.connection import open_database
from timestep.store.runs import mark_queued
from timestep.store.segments import enqueue_segment


class Place:
    """A database, and the chores of an executor on it."""

    def __init__(self, connector: Connector, journal: Any) -> None:
        self.connector, self.journal = connector, journal
        self.database, self.client = connector.database, connector.dbos
        self.chores = Chores(connector, executor_id="test", version="test:1:1")

    def run(self, run_id: str, *, status: str, workflow: str | None, reason: str | None = None) -> None:
        """Store an old run, and its workflow when that is there."""
        start_run(self.database, run_id, agent="assistant")
        self.journal.query(
            "update timestep.runs set status = %s, reason = %s, created_at = now() - interval '1 minute', "
            "segment_started_at = null, executor_id = null, application_version = null, "
            "finished_at = case when %s = 'cancelled' then now() end where id = %s", status, reason, status, run_id,
        )  # fmt: skip
        if workflow is not None:
            self.workflow(run_id, workflow)

    def workflow(self, workflow_id: str, status: str) -> None:
        self.client.enqueue({"workflow_name": "agent_run", "queue_name": "none", "workflow_id": workflow_id}, {})
        self.set_workflow(workflow_id, status)

    def set_workflow(self, workflow_id: str, status: str) -> None:
        self.journal.query("update dbos.workflow_status set status = %s where workflow_uuid = %s", status, workflow_id)

    def compare(self) -> None:
        self.chores._tie_loose_ends()  # pyright: ignore[reportPrivateUsage] - due only every ten seconds

    def resume_waiting(self) -> None:
        self.chores._look()  # pyright: ignore[reportPrivateUsage]
        self.chores._resume_parked()  # pyright: ignore[reportPrivateUsage] - the one that is tested

    def states(self, run_id: str, workflow_id: str | None = None) -> tuple[str | None, str | None]:
        """Return the status of a run and that of its workflow."""
        found = self.journal.query(
            "select status from dbos.workflow_status where workflow_uuid = %s", workflow_id or run_id
        )
        return self.journal.status(run_id), found[0]["status"] if found else None


@pytest.fixture
def place(
    server: EmbeddedPostgres, new_database: Callable[[], str], journal_of: Callable[[str], Any]
) -> Iterator[Place]:
    name = new_database()
    database = open_database(server.url(name), application="test")
    connector = Connector(database, application="test")
    yield Place(connector, journal_of(name))
    connector.close()
    database.close()


def test_what_was_claimed_in_a_crowd_has_time_to_begin(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[list[str]] = []
    idle = {"left", "claimed"}
    monkeypatch.setattr(chores_module.dbos_recovery, "idle_workflows", lambda _: set(idle))
    monkeypatch.setattr(chores_module.dbos_recovery, "recover_lost", lambda _, ids: put_back.append(sorted(ids)))
    monkeypatch.setattr(chores_module.dbos_recovery, "active_workflow_ids", lambda: [])
    monkeypatch.setattr(engine, "_left", {"left"})

    look = place.chores._recover_lost  # pyright: ignore[reportPrivateUsage] - due only every ten seconds
    look()
    idle.add("new")
    look()
    assert put_back == [[], ["left"]]
    idle -= {"left", "new"}  # put back; another executor may have it
    for _ in range(chores_module.LOOKS_BEFORE_LOST - 3):
        look()
    idle.add("new")
    assert not any(put_back[2:])
    look()
    assert put_back[-1] == ["claimed"]


def test_what_was_left_is_remembered_as_long_as_it_may_be_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores_module.dbos_recovery, "idle_workflows", lambda _: {"left"})
    monkeypatch.setattr(chores_module.dbos_recovery, "recover_lost", lambda *_: None)
    monkeypatch.setattr(chores_module.dbos_recovery, "active_workflow_ids", lambda: ["just being left"])
    monkeypatch.setattr(engine, "_left", {"left", "just being left", "cancelled long ago"})

    place.chores._recover_lost()  # pyright: ignore[reportPrivateUsage] - due only every ten seconds

    assert engine.left_workflows() == {"left", "just being left"}


def test_more_runs_are_compared_than_postgres_takes_parameters(place: Place) -> None:
    place.journal.query(
        "insert into timestep.runs (id, agent, status, input, input_digest, options, created_at) "
        "select 'many-' || n, 'assistant', 'queued', '1', 'd', '{}', now() - interval '1 minute' "
        "from generate_series(1, 66000) n"
    )
    place.run("zz", status="running", workflow="CANCELLED")

    place.compare()

    assert place.states("zz") == ("cancelled", "CANCELLED")


def test_batches_meet_every_run_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores_module, "BATCH_RUNS", 2)
    for number in range(5):
        place.run(f"running-{number}", status="running", workflow="CANCELLED")
        place.run(f"cancelled-{number}", status="cancelled", workflow="ENQUEUED")

    place.compare()

    assert {place.states(f"running-{number}") for number in range(5)} == {("cancelled", "CANCELLED")}
    assert {place.states(f"cancelled-{number}") for number in range(5)} == {("cancelled", "CANCELLED")}


def test_a_batch_that_fails_does_not_stop_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores_module, "BATCH_RUNS", 1)
    place.run("a", status="running", workflow="CANCELLED")
    place.run("b", status="running", workflow="CANCELLED")
    look = place.client.list_workflows

    def list_workflows(**arguments: Any) -> Any:
        if arguments["workflow_ids"] == ["a"]:
            raise ValueError("unreadable")
        return look(**arguments)

    monkeypatch.setattr(place.client, "list_workflows", list_workflows)

    with pytest.raises(ExceptionGroup) as caught:
        place.compare()

    assert [str(error) for error in caught.value.exceptions] == ["unreadable"]
    assert (place.states("a"), place.states("b")) == (("running", "CANCELLED"), ("cancelled", "CANCELLED"))


def test_a_segment_that_is_missing_twice_is_enqueued(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores_module, "BATCH_RUNS", 1)
    for run_id in ("a", "b"):
        place.run(run_id, status="queued", workflow="SUCCESS")
        place.journal.query("update timestep.runs set segment = 2, closed_segment = 1 where id = %s", run_id)

    place.compare()
    assert [place.states(run_id, f"{run_id}~2") for run_id in ("a", "b")] == [("queued", None)] * 2
    place.compare()
    assert [place.states(run_id, f"{run_id}~2") for run_id in ("a", "b")] == [("queued", "ENQUEUED")] * 2


@pytest.mark.parametrize(("kind", "workflow"), [("limit", "r~2~copy"), ("approval", "r~2")])
def test_what_is_missing_after_a_halt_starts_from_a_copy_of_the_journal(
    place: Place, kind: ApprovalKind, workflow: str
) -> None:
    asked = Approval(
        id="a", run_id="r", segment=1, place=0, kind=kind, session_id=None, agent="assistant", tool="", call_id="",
        arguments="", arguments_digest="",
    )  # fmt: skip
    close_run(place.database, "r", agent="assistant", approvals=[asked])
    place.run("r", status="queued", workflow="SUCCESS")
    place.journal.query("update timestep.runs set segment = 2 where id = 'r'")

    place.compare()
    place.compare()

    assert place.states("r", workflow) == ("queued", "ENQUEUED")


def test_a_resume_that_died_halfway_is_finished_and_not_cancelled(place: Place) -> None:
    place.run("r", status="running", workflow="PENDING")
    cancel_run(place.connector, "r")
    place.database.run_sync(mark_queued, "r", was=("cancelled",))  # and here the process dies

    place.compare()
    assert place.states("r") == ("queued", "CANCELLED")
    place.compare()
    assert place.states("r") == ("queued", "ENQUEUED")


def test_a_resume_that_died_before_the_copy_of_the_journal_is_finished_too(place: Place) -> None:
    place.run("r", status="queued", workflow="SUCCESS")
    place.journal.query("update timestep.runs set segment = 2, closed_segment = 1 where id = 'r'")
    place.database.run_sync(enqueue_segment, "r", 2, is_copy=True)
    cancel_run(place.connector, "r")
    place.database.run_sync(mark_queued, "r", was=("cancelled",))

    place.compare()
    place.compare()

    assert place.states("r", "r~2~copy") == ("queued", "ENQUEUED")
    assert place.states("r", "r~2") == ("queued", None)


def test_a_run_that_is_parked_during_the_look_is_not_cancelled(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run("r", status="running", workflow="PENDING")
    look = place.client.list_workflows

    def list_workflows(**arguments: Any) -> Any:
        place.journal.query("update timestep.runs set status = 'interrupted' where id = 'r'")
        place.client.cancel_workflow("r")
        return look(**arguments)

    monkeypatch.setattr(place.client, "list_workflows", list_workflows)
    place.compare()

    assert place.states("r") == ("interrupted", "CANCELLED")


def test_a_run_whose_parking_is_not_finished_is_not_resumed(place: Place) -> None:
    register_agents(Agent(name="assistant", model=ScriptedModel([])))
    place.run("r", status="interrupted", reason="agent_not_registered", workflow="PENDING")

    place.resume_waiting()
    assert place.states("r") == ("interrupted", "PENDING")
    place.client.cancel_workflow("r")
    place.resume_waiting()
    assert place.states("r") == ("queued", "ENQUEUED")
    bound = place.journal.query("select application_version from dbos.workflow_status where workflow_uuid = 'r'")
    assert bound == [{"application_version": "test:1:1"}]  # to the one that knows the agent


@pytest.fixture
def executor(place: Place, settings_of_module: pytest.MonkeyPatch) -> Iterator[Executor]:
    executor = Executor(place.database, current_settings(), version="1", gate=Gate())
    executor.start()
    yield executor
    executor.stop()


def test_a_chore_that_fails_is_told_once_and_stops_no_other(
    executor: Executor, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []

    def broken() -> None:
        raise ValueError("no such column")

    def behind() -> None:
        done.append(1)

    with caplog.at_level(logging.WARNING, logger="timestep"):
        executor.launched(lambda: [broken, behind])
        until(lambda: len(done) >= 2, "two ticks")

    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "broken failed; it is tried again."
    ]


def test_a_lock_that_is_lost_during_a_failing_chore_is_noticed(
    executor: Executor, place: Place, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def broken() -> None:
        if not seen:
            seen.append("broken")
            place.journal.query(
                "select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database "
                "where l.locktype = 'advisory' and d.datname = current_database()"
            )
            raise ValueError("the server is gone")

    def behind() -> None:
        lost = any("lost its lock" in record.getMessage() for record in caplog.records)
        seen.append("lock was lost" if lost else "lock is held")

    with caplog.at_level(logging.WARNING, logger="timestep"):
        executor.launched(lambda: [broken, behind])
        until(lambda: len(seen) > 1, "a tick after the lock is back")

    assert seen[:2] == ["broken", "lock was lost"]
