"""Executors and stranded runs as seen from outside, on a database where nothing is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from timestep.client.connector import Connector
from timestep.client.executors import list_executors, list_stranded_runs
from timestep.client.queues import enqueue_run, queued_run
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.records import RunRequest
from timestep.store.connection import open_database
from timestep.store.executors import LOCK_PREFIX, ExecutorRow, insert_executor


class Place:
    """A database with executors that live only as far as their locks do."""

    def __init__(self, connector: Connector, journal: Any, locks: psycopg.Connection[Any]) -> None:
        self.connector, self.journal, self.locks = connector, journal, locks
        self.database, self.client = connector.database, connector.dbos

    def executor(
        self,
        name: str,
        *,
        version: str = "app:1:8",
        agents: Sequence[str] = ("desk",),
        queues: Sequence[str] | None = None,
        is_alive: bool = True,
    ) -> None:
        row = ExecutorRow(
            id=name, application_version=version, host="h", pid=1, process_space="s", agents=agents, queues=queues
        )
        self.database.run_sync(insert_executor, row)
        self.journal.query(
            "insert into dbos.application_versions (version_id, version_name, created_at, application_name) "
            "values (%s, %s, (select count(*) from dbos.application_versions), 'app') on conflict do nothing",
            version, version,
        )  # fmt: skip
        if is_alive:
            self.locks.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [LOCK_PREFIX + name])

    def queue(self, name: str) -> None:
        self.client.register_queue(name, on_conflict="never_update")

    def run(self, run_id: str, *, agent: str = "desk", queue: str = "timestep_agent_queue", version: str = "") -> None:
        request = RunRequest(run_id=run_id, agent=agent, input_items="hi")
        enqueue_run(self.connector, queued_run(request, application="app", queue=queue))
        if version:
            self.journal.query(
                "update dbos.workflow_status set application_version = %s where workflow_uuid = %s", version, run_id
            )

    def running(self, run_id: str, *, on: str, version: str = "app:1:8") -> None:
        """Let a run be executed by an executor."""
        self.run(run_id)
        self.journal.query(
            "update dbos.workflow_status set status = 'PENDING', executor_id = %s, application_version = %s "
            "where workflow_uuid = %s", on, version, run_id,
        )  # fmt: skip
        self.journal.query(
            "update timestep.runs set status = 'running', executor_id = %s, application_version = %s, "
            "segment_started_at = now() where id = %s", on, version, run_id,
        )  # fmt: skip

    def parked(self, run_id: str, reason: str, *, agent: str = "desk", version: str = "app:1:7") -> None:
        self.run(run_id, agent=agent)
        self.journal.query(
            "update timestep.runs set status = 'interrupted', reason = %s, application_version = %s where id = %s",
            reason, version, run_id,
        )  # fmt: skip
        self.client.cancel_workflow(run_id)

    def stranded(self) -> dict[str, tuple[str, str]]:
        """Return why and what is said of each stranded run."""
        return {each.run_id: (each.why, each.detail) for each in list_stranded_runs(self.connector)}


@pytest.fixture
def place(
    server: EmbeddedPostgres, new_database: Callable[[], str], journal_of: Callable[[str], Any]
) -> Iterator[Place]:
    name = new_database()
    database = open_database(server.url(name), application="app")
    connector = Connector(database, application="app")
    with server.connect(name, autocommit=True) as locks:
        yield Place(connector, journal_of(name), locks)
    connector.close()
    database.close()


def test_executors_are_listed_with_what_runs_on_them_and_whether_their_lock_is_held(place: Place) -> None:
    place.executor("gone", version="app:1:7", is_alive=False)
    place.executor("e1", agents=["desk", "clerk"], queues=["mail"])
    for run_id in ("b", "a"):
        place.running(run_id, on="e1")
    place.journal.query("update timestep.executors set free_since = now() - interval '1 minute' where id = 'gone'")

    gone, alive = list_executors(place.connector)

    assert (gone.executor_id, gone.is_alive, gone.running, gone.run_ids) == ("gone", False, 0, [])
    assert (gone.application_version, gone.queues) == ("app:1:7", None)
    assert (alive.is_alive, alive.agents, alive.queues) == (True, ["desk", "clerk"], ["mail"])
    assert (alive.running, alive.run_ids) == (2, ["b", "a"])
    assert gone.last_seen_at is not None
    assert alive.last_seen_at is not None
    assert 59 < (alive.last_seen_at - gone.last_seen_at).total_seconds() < 120


def test_an_executor_that_gave_its_lock_up_has_no_time_when_it_was_last_seen(place: Place) -> None:
    place.executor("e1", is_alive=False)
    place.journal.query("update timestep.executors set free_since = 'epoch'")

    (gone,) = list_executors(place.connector)

    assert (gone.is_alive, gone.last_seen_at) == (False, None)


def test_without_an_executor_that_takes_runs_every_waiting_run_is_stranded(place: Place) -> None:
    place.executor("site", queues=[], agents=[])
    place.executor("dead", is_alive=False)
    place.run("queued")
    place.running("left", on="dead")
    place.running("held", on="site")

    assert place.stranded() == dict.fromkeys(("left", "queued"), ("executor", "no executor that takes runs is alive"))


def test_a_run_whose_agent_is_registered_nowhere_is_stranded(place: Place) -> None:
    place.executor("e1", version="app:1:8", agents=["desk"])
    place.executor("old", version="app:1:7", agents=["clerk"])
    place.run("fine")
    place.run("of-the-old-version", agent="clerk")
    place.run("unknown", agent="ghost")
    place.parked("parked", "agent_not_registered", agent="ghost")
    place.parked("soon", "agent_not_registered")

    assert place.stranded() == dict.fromkeys(("parked", "unknown"), ("agent", "no live executor has the agent 'ghost'"))


def test_a_run_in_a_queue_to_which_nobody_listens_is_stranded(place: Place) -> None:
    place.queue("mail")
    place.queue("print")
    place.executor("old", version="app:1:7", queues=["print"])
    place.executor("new", version="app:1:8", queues=["mail"])
    place.run("listened", queue="mail")
    place.run("to-the-newest", queue="print")
    place.run("bound", queue="print", version="app:1:7")
    place.run("bound-to-gone", queue="mail", version="app:1:6")
    place.run("no-queue", queue="nowhere")
    place.client.delete_queue("nowhere")

    assert place.stranded() == {
        "no-queue": ("queue", "no live executor listens to the queue 'nowhere', and it is not there"),
        "to-the-newest": ("queue", "no live executor listens to the queue 'print'"),
    }


def test_a_run_whose_steps_do_not_fit_is_stranded_with_the_command_that_mends_it(place: Place) -> None:
    place.executor("new")
    place.parked("one", "history_changed")

    (stranded,) = list_stranded_runs(place.connector)
    assert (stranded.why, stranded.detail) == ("version", "its steps fit version 7, which no live executor has")
    assert "TIMESTEP_APPLICATION_VERSION=7 timestep worker MODULE" in stranded.hint
    assert "timestep runs resume one" in stranded.hint

    place.executor("old", version="app:1:7")
    (stranded,) = list_stranded_runs(place.connector)
    assert stranded.hint == "Let it go on: `timestep runs resume one`."


def test_what_waits_for_a_person_or_has_ended_is_not_stranded(place: Place) -> None:
    for run_id, status in (("asked", "interrupted"), ("done", "succeeded"), ("broken", "failed")):
        place.run(run_id)
        place.journal.query("update timestep.runs set status = %s, reason = 'approval' where id = %s", status, run_id)

    assert place.stranded() == {}


def test_more_stranded_runs_than_asked_for_are_cut(place: Place) -> None:
    for number in range(5):
        place.run(f"run-{number}")

    assert [each.run_id for each in list_stranded_runs(place.connector, limit=2)] == ["run-0", "run-1"]
