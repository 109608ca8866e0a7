"""Cancel, time limits, and going on after them: what has finished is never done again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from comparison import STEPS, WHOLE, left_by_porter
from drill import Child, Drill, wait_until

from timestep.client import runs as desk
from timestep.client.connector import Connector
from timestep.errors import RunNotFoundError, RunStateError
from timestep.store.connection import open_database


@dataclass(frozen=True, kw_only=True)
class Door:
    """The verbs on runs in this process, which executes nothing."""

    connector: Connector

    def cancel(self, run: str) -> None:
        desk.cancel_run(self.connector, run)

    def resume(self, run: str, *, max_turns: int | None = None) -> None:
        desk.resume_run(self.connector, run, max_turns=max_turns)


@pytest.fixture
def door(drill: Drill) -> Iterator[Door]:
    database = open_database(drill.server.url(drill.database), application=drill.database)
    connector = Connector(database, application=drill.database)
    yield Door(connector=connector)
    connector.close()
    database.close()


def wait_failed(drill: Drill, run: str, error: str, *, child: Child) -> None:
    """Wait until the caller of a run has got this error."""

    def has_failed(lines: list[dict[str, str]]) -> bool:
        found = [line["error"] for line in lines if line["what"] == "failed" and line["run"] == run]
        assert all(each.startswith(error) for each in found), found
        return bool(found)

    drill.wait_lines(has_failed, f"{run} fails with {error}", child=child)


def row(drill: Drill, run: str) -> tuple[object, ...]:
    return drill.rows("select status, reason, segment, closed_segment from timestep.runs where id = %s", run)[0]


def assert_whole(drill: Drill, run: str, *, segment: int = 1) -> None:
    """Wait for the end of the run, and find everything there once."""
    drill.wait_status(run, "succeeded")
    assert left_by_porter(drill, run, segment=segment) == WHOLE
    assert row(drill, run) == ("succeeded", None, segment, segment)


def test_a_queued_run_is_cancelled_at_once_and_goes_on_when_it_is_resumed(drill: Drill, door: Door) -> None:
    child = drill.start("executor", queued=["one"], delay_seconds=3600)
    wait_until(lambda: drill.status("one") == "queued", "queued")
    door.cancel("one")
    assert row(drill, "one") == ("cancelled", "cancelled", 1, 0)
    assert drill.workflow_status("one") is None, "its turn in its session would have enqueued it"
    assert drill.started("one") == []
    drill.wait_launched(child)
    door.resume("one")
    assert_whole(drill, "one")
    assert drill.started("one") == STEPS


def test_cancelling_interrupts_an_async_tool_and_resuming_repeats_that_tool_alone(drill: Drill, door: Door) -> None:
    child = drill.start("executor", stops={"one": "body 2"}, runs=["one"])
    drill.wait_reached("one", child=child)
    door.cancel("one")
    door.cancel("one")
    wait_failed(drill, "one", "RunCancelledError", child=child)
    assert row(drill, "one") == ("cancelled", "cancelled", 1, 0)
    assert left_by_porter(drill, "one")[:2] == [[(STEPS[0],)], [(0, 0)]]
    drill.wait_lines(lambda lines: any(line["what"] == "interrupted" for line in lines), "interrupted", child=child)
    drill.release()
    door.resume("one")
    assert_whole(drill, "one")
    assert drill.started("one") == [*STEPS[:2], *STEPS[1:]]


def test_a_sync_tool_ends_in_its_thread_and_its_result_is_not_taken(drill: Drill, door: Door) -> None:
    child = drill.start("executor", stops={"one": "body 2"}, runs=["one"], tool="drag")
    drill.wait_reached("one", child=child)
    door.cancel("one")
    wait_failed(drill, "one", "RunCancelledError", child=child)
    drill.release()
    drill.wait_lines(
        lambda lines: [line for line in lines if line["what"] == "end" and line["kind"] == "tool"],
        "the thread ends", child=child,
    )  # fmt: skip
    assert row(drill, "one") == ("cancelled", "cancelled", 1, 0)
    steps = [name.replace("carry", "drag") for name in STEPS]
    assert left_by_porter(drill, "one")[0] == [(steps[0],)]
    door.resume("one")
    drill.wait_status("one", "succeeded")
    assert left_by_porter(drill, "one") == [[(name,) for name in steps], *WHOLE[1:]]
    assert drill.started("one") == [*steps[:2], *steps[1:]]


@pytest.mark.parametrize("point", ["start after", "recorded 3", "end 4", "close before"])
def test_a_run_that_is_cancelled_between_steps_begins_no_other_one(drill: Drill, door: Door, point: str) -> None:
    child = drill.start("executor", stops={"one": point}, runs=["one"])
    drill.wait_reached("one", child=child)
    begun = drill.started("one")
    door.cancel("one")
    drill.release()
    wait_failed(drill, "one", "RunCancelledError", child=child)
    recorded = [name for (name,) in left_by_porter(drill, "one")[0]]  # type: ignore[attr-defined]
    assert drill.started("one") == begun
    assert row(drill, "one") == ("cancelled", "cancelled", 1, 0)
    assert left_by_porter(drill, "one")[1:3] == [[(0, 0)], []]
    door.resume("one")
    assert_whole(drill, "one")
    assert drill.started("one") == [*begun, *(name for name in STEPS if name not in recorded)]


def test_a_finished_run_is_neither_cancelled_nor_resumed(drill: Drill, door: Door) -> None:
    drill.start("executor", runs=["one"])
    assert_whole(drill, "one")
    with pytest.raises(RunStateError, match="succeeded"):
        door.cancel("one")
    with pytest.raises(RunStateError, match="succeeded"):
        door.resume("one")
    with pytest.raises(RunNotFoundError, match="two"):
        door.cancel("two")
    assert_whole(drill, "one")


def test_a_running_run_is_not_resumed(drill: Drill, door: Door) -> None:
    child = drill.start("executor", stops={"one": "body 2"}, runs=["one"])
    drill.wait_reached("one", child=child)
    with pytest.raises(RunStateError, match="running"):
        door.resume("one")
    drill.release()
    assert_whole(drill, "one")
    assert drill.started("one") == STEPS


def test_a_run_that_is_cancelled_while_its_executor_is_dead_stays_cancelled(drill: Drill, door: Door) -> None:
    first = drill.start("executor", stops={"one": "body 4", "two": "body 4"}, runs=["one", "two"])
    drill.wait_reached("one", "two", child=first)
    first.kill()
    door.cancel("one")
    drill.start("executor")
    drill.wait_status("two", "succeeded")  # it was taken over, and so the other one was seen too
    assert row(drill, "one") == ("cancelled", "cancelled", 1, 0)
    assert drill.started("one") == STEPS[:4]
    door.resume("one")
    assert_whole(drill, "one")
    assert drill.started("one") == [*STEPS[:4], *STEPS[3:]]


def test_a_resumed_run_survives_the_death_of_its_executor(drill: Drill, door: Door) -> None:
    first = drill.start("executor", stops={"one": "recorded 2"}, runs=["one"])
    drill.wait_reached("one", child=first)
    door.cancel("one")
    first.kill()
    door.resume("one")
    second = drill.start("executor", stops={"one": "body 4"})
    drill.wait_reached("one", child=second)
    second.kill()
    drill.start("executor")
    assert_whole(drill, "one")
    assert drill.started("one") == [*STEPS[:4], *STEPS[3:]]


def test_a_run_that_reaches_its_time_limit_ends_as_cancelled_and_can_be_resumed(drill: Drill, door: Door) -> None:
    child = drill.start("executor", stops={"one": "body 4"}, runs=["one"], timeout_seconds=3)
    drill.wait_reached("one", child=child)
    wait_failed(drill, "one", "RunTimedOutError", child=child)
    assert row(drill, "one") == ("cancelled", "timeout", 1, 0)
    drill.release()
    door.resume("one")
    assert_whole(drill, "one")
    assert drill.started("one") == [*STEPS[:4], *STEPS[3:]]


def test_the_time_limit_counts_execution_and_not_time_in_a_queue(drill: Drill) -> None:
    child = drill.start("executor", stops={"one": "body 2"}, queued=["one"], timeout_seconds=100, delay_seconds=2)
    drill.wait_reached("one", child=child)
    query = """select extract(epoch from deadline_at - segment_started_at)::int,
                      segment_started_at - created_at >= interval '1.9 seconds' from timestep.runs"""
    assert drill.rows(query) == [(100, True)]


def test_the_time_limit_counts_over_all_segments(drill: Drill, door: Door) -> None:
    (drill.folder / "broken").touch()
    child = drill.start("executor", stops={"one~2": "body 5"}, runs=["one"], timeout_seconds=100)
    wait_failed(drill, "one", "ModelBehaviorError", child=child)
    assert drill.rows("select executed_seconds > 0 and executed_seconds < 100 from timestep.runs") == [(True,)]
    drill.execute("update timestep.runs set executed_seconds = 90")
    door.resume("one")
    drill.wait_reached("one~2", child=child)
    assert drill.rows("select extract(epoch from deadline_at - segment_started_at)::int from timestep.runs") == [(10,)]


def test_a_failed_run_goes_on_in_a_new_segment_with_the_turns_that_were_good(drill: Drill, door: Door) -> None:
    (drill.folder / "broken").touch()
    child = drill.start("executor", runs=["one"])
    wait_failed(drill, "one", "ModelBehaviorError", child=child)
    assert row(drill, "one") == ("failed", "model_behavior_error", 1, 1)
    assert left_by_porter(drill, "one")[1] == [(5, 5)], "the finished turns are in the session"
    (drill.folder / "broken").unlink()
    door.resume("one")
    assert_whole(drill, "one", segment=2)
    assert drill.started("one") == [*STEPS, STEPS[4]]
    answer = drill.rows("select output #>> '{}' from timestep.runs where id = 'one'")
    assert answer == [("carried 2 boxes, saw 5 items",)]


def test_a_failed_run_that_fails_again_can_be_resumed_again(drill: Drill, door: Door) -> None:
    (drill.folder / "broken").touch()
    child = drill.start("executor", runs=["one"])
    wait_failed(drill, "one", "ModelBehaviorError", child=child)
    door.resume("one")
    wait_until(lambda: row(drill, "one") == ("failed", "model_behavior_error", 2, 2), "it fails in segment 2")
    (drill.folder / "broken").unlink()
    door.resume("one")
    assert_whole(drill, "one", segment=3)
    assert drill.started("one") == [*STEPS, STEPS[4], STEPS[4]]


def test_a_run_that_reached_its_limit_of_turns_goes_on_with_a_higher_one(drill: Drill, door: Door) -> None:
    child = drill.start("executor", runs=["one"], max_turns=2)
    wait_failed(drill, "one", "MaxTurnsExceeded", child=child)
    assert row(drill, "one") == ("failed", "max_turns_exceeded", 1, 1)
    door.resume("one", max_turns=5)
    assert_whole(drill, "one", segment=2)
    assert drill.started("one") == STEPS


def test_the_new_segment_of_a_failed_run_survives_the_death_of_its_executor(drill: Drill, door: Door) -> None:
    first = drill.start("executor", stops={"one~2": "body 5"}, runs=["one"], max_turns=2)
    wait_failed(drill, "one", "MaxTurnsExceeded", child=first)
    door.resume("one", max_turns=5)
    drill.wait_reached("one~2", child=first)
    first.kill()
    drill.start("executor")
    assert_whole(drill, "one", segment=2)
    assert drill.started("one") == [*STEPS, STEPS[4]]


def test_a_run_can_be_resumed_before_its_executor_has_seen_that_it_was_cancelled(drill: Drill, door: Door) -> None:
    child = drill.start("executor", stops={"one": "body 2", "two": "end 4"}, runs=["one", "two"])
    drill.wait_reached("one", "two", child=child)
    for run in ("one", "two"):
        door.cancel(run)
        door.resume(run)
    drill.release()
    for run in ("one", "two"):
        assert_whole(drill, run)


def test_a_resume_that_dies_half_way_can_be_repeated(drill: Drill, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    child = drill.start("executor", runs=["one"], max_turns=2)
    wait_failed(drill, "one", "MaxTurnsExceeded", child=child)
    child.kill()

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "mark_queued", die)
        with pytest.raises(KeyboardInterrupt):
            door.resume("one", max_turns=5)
    door.resume("one", max_turns=5)
    drill.start("executor")
    assert_whole(drill, "one", segment=2)
    assert drill.started("one") == STEPS


def test_a_new_segment_that_fails_before_its_resume_returns_has_failed(
    drill: Drill, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    (drill.folder / "broken").touch()
    child = drill.start("executor", runs=["one"])
    wait_failed(drill, "one", "ModelBehaviorError", child=child)
    fork = door.connector.dbos.fork_workflow

    def fork_and_wait(*args: Any, **kwargs: Any) -> None:
        fork(*args, **kwargs)
        wait_until(lambda: row(drill, "one")[3] == 2, "segment 2 is closed")

    with monkeypatch.context() as patch:
        patch.setattr(door.connector.dbos, "fork_workflow", fork_and_wait)
        door.resume("one")
    assert row(drill, "one") == ("failed", "model_behavior_error", 2, 2)
    (drill.folder / "broken").unlink()
    door.resume("one")
    assert_whole(drill, "one", segment=3)
