"""Rate limits over several processes of one database, counted by the server that they call."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from drill import Child, Drill, wait_until
from stamping_server import StampingServer

LIFT = "update timestep.rate_limits set requests_free_at = null, paused_until = null"


@pytest.fixture
def stamping() -> Iterator[StampingServer]:
    stamping = StampingServer()
    yield stamping
    stamping.close()


def start(drill: Drill, stamping: StampingServer, *runs: str, per_minute: int | None = None) -> Child:
    limits = {} if per_minute is None else {"stamped": {"requests_per_minute": per_minute}}
    environment = {"TIMESTEP_RATE_LIMITS": json.dumps(limits)}
    child = drill.start("caller", environment=environment, runs=runs, url=stamping.url)
    drill.wait_launched(child)
    return child


def wait_waiting(drill: Drill, run: str) -> None:
    query = "select waits_for from timestep.runs where id = %s and status = 'running' and waits_for is not null"
    wait_until(lambda: drill.rows(query, run), f"{run} waits for a rate limit")


def test_three_processes_together_keep_one_limit(drill: Drill, stamping: StampingServer) -> None:
    children = [
        start(drill, stamping, *(f"{process}-{number}" for number in range(4)), per_minute=60) for process in "abc"
    ]
    for child in children:
        for number in range(4):
            drill.wait_status(f"{'abc'[children.index(child)]}-{number}", "succeeded")

    stamps = [at for at, _ in stamping.stamps]
    assert len(stamps) == 12
    assert max(sum(1 for at in stamps if start <= at < start + 1) for start in stamps) <= 6 + 2  # six at once
    assert stamps[-1] - stamps[0] > 3  # the other six have come one after the other


def test_a_run_whose_process_dies_while_it_waits_waits_elsewhere(drill: Drill, stamping: StampingServer) -> None:
    first = start(drill, stamping, "one", per_minute=1)
    drill.wait_status("one", "succeeded")
    dying = start(drill, stamping, "two", per_minute=1)
    wait_waiting(drill, "two")
    dying.kill()
    attempts = "select attempt from timestep.runs where id = 'two'"
    wait_until(lambda: drill.rows(attempts) == [(2,)], "it goes on in the other process")
    wait_waiting(drill, "two")
    assert [said for _, said in stamping.stamps] == ["one"]

    drill.execute(LIFT)
    drill.wait_status("two", "succeeded")
    assert [said for _, said in stamping.stamps] == ["one", "two"]
    assert drill.rows("select waits_for from timestep.runs") == [(None,), (None,)]
    assert first.pid not in drill.warm.codes


def test_a_process_that_stops_hands_over_what_waits(drill: Drill, stamping: StampingServer) -> None:
    first = start(drill, stamping, "one", "two", per_minute=1)
    wait_until(lambda: len(stamping.stamps) == 1, "one of them was asked")
    waiting = ({"one", "two"} - {stamping.stamps[0][1]}).pop()
    wait_waiting(drill, waiting)
    (drill.folder / "end").touch()
    first.end()
    (drill.folder / "end").unlink()
    assert [line["is_done"] for line in drill.lines() if line["what"] == "drained"] == [True]
    assert len(stamping.stamps) == 1

    start(drill, stamping, per_minute=1)
    wait_until(lambda: drill.rows("select 1 from timestep.runs where attempt = 2"), "it goes on in another one")
    drill.execute(LIFT)
    drill.wait_status(waiting, "succeeded")
    assert len(stamping.stamps) == 2


def test_a_429_in_one_process_slows_the_others(drill: Drill, stamping: StampingServer) -> None:
    """No limit is configured; the second process was launched before and hears of it while it has nothing to do."""
    stamping.refusals["one"] = 3600
    other = start(drill, stamping)
    start(drill, stamping, "one")
    wait_waiting(drill, "one")
    drill.wait_lines(
        lambda lines: any(line["what"] == "paused" and line["pid"] == other.pid for line in lines),
        "the other one has heard of the pause", child=other,
    )  # fmt: skip
    (drill.folder / f"call_{other.pid}").write_text("two")
    wait_waiting(drill, "two")
    assert [said for _, said in stamping.stamps] == ["one"]

    drill.execute(LIFT)
    drill.wait_status("one", "succeeded")
    drill.wait_status("two", "succeeded")
    assert sorted(said for _, said in stamping.stamps) == ["one", "one", "two"]
