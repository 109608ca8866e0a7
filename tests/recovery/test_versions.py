"""Old and new application versions side by side: who goes on with which run, and what happens when the code differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from comparison import STEPS, WHOLE, left_by_porter
from drill import Child, Drill, wait_until

from timestep.client import runs as desk
from timestep.client.connector import Connector
from timestep.store.connection import open_database


@dataclass(frozen=True, kw_only=True)
class Door:
    """The verbs on runs in this process, which executes nothing."""

    connector: Connector

    def resume(self, run: str) -> None:
        desk.resume_run(self.connector, run)

    def cancel(self, run: str) -> None:
        desk.cancel_run(self.connector, run)


@pytest.fixture
def door(drill: Drill) -> Iterator[Door]:
    database = open_database(drill.server.url(drill.database), application=drill.database)
    connector = Connector(database, application=drill.database)
    yield Door(connector=connector)
    connector.close()
    database.close()


def start(drill: Drill, version: str, **arguments: object) -> Child:
    """Start an executor of a version."""
    environment = {"TIMESTEP_APPLICATION_VERSION": version}
    return drill.start("executor", environment=environment, **arguments)  # type: ignore[arg-type]


def versions(drill: Drill, run: str) -> tuple[str | None, ...]:
    """Return the versions of a run's row: that of the executor, and that from which it was adopted."""
    found = drill.rows("select application_version, adopted_from from timestep.runs where id = %s", run)[0]
    return tuple(version.rpartition(":")[2] if version else None for version in found)


def bound_to(drill: Drill, workflow: str) -> str:
    """Return the version to which DBOS binds a segment."""
    query = "select application_version from dbos.workflow_status where workflow_uuid = %s"
    return drill.rows(query, workflow)[0][0].rpartition(":")[2]


def wait_unfit(drill: Drill, run: str) -> str:
    """Wait until a run is interrupted because its history does not fit, and DBOS gave it up; return what it says."""
    drill.wait_status(run, "interrupted")
    wait_until(lambda: drill.workflow_status(run) == "CANCELLED", f"{run} is parked")
    reason, message = drill.rows("select reason, error ->> 'message' from timestep.runs where id = %s", run)[0]
    assert reason == "history_changed"
    return message


def test_a_run_stays_with_its_version_while_that_lives_and_is_adopted_when_it_has_gone(drill: Drill) -> None:
    old = start(drill, "7", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=old)
    new = start(drill, "8", queued=["fresh"])
    drill.wait_status("fresh", "succeeded")
    assert versions(drill, "fresh") == ("8", None)
    other = start(drill, "7", stops={"one": "body 4"})
    drill.wait_launched(other)
    old.kill()
    drill.wait_reached("one", child=other)
    assert versions(drill, "one") == ("7", None)
    other.kill()
    drill.wait_status("one", "succeeded")
    assert versions(drill, "one") == ("8", "7")
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == [*STEPS[:4], *STEPS[3:]]
    assert "which no executor has, go on with" in new.text()


@pytest.mark.parametrize("code", ["guarded", "empty"])
def test_a_run_whose_steps_do_not_fit_is_interrupted_and_goes_on_with_its_own_version(
    drill: Drill, door: Door, code: str
) -> None:
    old = start(drill, "7", stops={"one": "body 2"}, runs=["one"])
    drill.wait_reached("one", child=old)
    old.kill()
    new = start(drill, "8", code=code)
    message = wait_unfit(drill, "one")
    assert f"recorded by version {drill.database}:1:7" in message
    assert f"version {drill.database}:1:8" in message
    assert (versions(drill, "one"), bound_to(drill, "one")) == (("7", None), "7")

    assert drill.started("one") == STEPS[:2]
    drill.wait_launched(start(drill, "7"))
    door.resume("one")
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == WHOLE
    assert versions(drill, "one") == ("7", None)
    assert drill.started("one") == [*STEPS[:2], *STEPS[1:]]
    assert new.pid not in drill.warm.codes


def test_a_run_of_another_engine_is_not_replayed(drill: Drill) -> None:
    old = start(drill, "7", stops={"one": "body 2", "two": "start after"}, runs=["one", "two"])
    drill.wait_reached("one", "two", child=old)
    old.kill()
    for table in ("dbos.workflow_status", "timestep.executors", "timestep.runs"):
        drill.execute(f"update {table} set application_version = replace(application_version, ':1:7', ':0:7')")
    start(drill, "7")
    message = wait_unfit(drill, "one")
    assert f"{drill.database}:0:7" in message
    drill.wait_status("two", "succeeded")  # nothing of it was recorded
    assert drill.started("one") == STEPS[:2]


def test_work_that_is_queued_for_a_version_that_has_gone_is_adopted(drill: Drill, door: Door) -> None:
    old = start(drill, "7", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=old)
    door.cancel("one")
    old.kill()
    door.resume("one")
    start(drill, "8")
    drill.wait_status("one", "succeeded")
    assert versions(drill, "one") == ("8", "7")
    assert drill.started("one") == STEPS


def test_new_work_goes_to_an_older_version_when_the_newer_one_has_gone(drill: Drill) -> None:
    old = start(drill, "7")
    drill.wait_launched(old)
    new = start(drill, "8", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=new)
    new.kill()
    drill.wait_status("one", "succeeded")
    assert versions(drill, "one") == ("7", "8")
    start(drill, "7", queued=["two"])
    drill.wait_status("two", "succeeded")
    assert versions(drill, "two") == ("7", None)


def test_a_program_of_a_newer_version_that_takes_no_runs_does_not_take_new_work_away(drill: Drill) -> None:
    worker = start(drill, "7")
    drill.wait_launched(worker)
    site = start(drill, "8", takes_runs=False, queued=["one"])
    drill.wait_launched(site)
    drill.wait_status("one", "succeeded")
    assert versions(drill, "one") == ("7", None)


def test_a_run_whose_agent_only_the_old_version_has_goes_to_it(drill: Drill) -> None:
    old = start(drill, "7")
    drill.wait_launched(old)
    new = start(drill, "8", has_agent=False)
    drill.wait_launched(new)
    start(drill, "7", queued=["one"])
    drill.wait_status("one", "succeeded")
    assert versions(drill, "one")[0] == "7"
    segments = drill.rows("select segment from timestep.runs where id = 'one'")[0][0]
    assert segments <= 2, "it went to the version that has the agent, not to and fro"


def test_what_a_fenced_executor_took_meanwhile_is_taken_over(drill: Drill) -> None:
    first = start(drill, "7", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    drill.execute("delete from timestep.executors")  # as one that was taken over, and took the run after that
    first.kill()
    start(drill, "7")
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == WHOLE
    assert drill.started("one") == STEPS
