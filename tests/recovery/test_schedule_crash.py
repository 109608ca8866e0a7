"""A schedule that fires every second, over two executors and the death of one."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import timekeeper
from drill import Drill, wait_until


def ticks(drill: Drill, status: str = "%") -> list[datetime]:
    """Return the ticks that have a run of a status, in order."""
    ids = [row[0] for row in drill.rows("select id from timestep.runs where status like %s", status)]
    assert all(each.startswith(f"{timekeeper.SCHEDULE}:") for each in ids)
    return sorted(datetime.fromisoformat(each.removeprefix(f"{timekeeper.SCHEDULE}:")) for each in ids)


def test_each_tick_starts_one_run_while_executors_come_and_die(drill: Drill) -> None:
    first = drill.start("timekeeper_executor", environment={timekeeper.HOLD_VARIABLE: "1"})
    drill.wait_lines(lambda lines: chimes(lines, first.pid), "a run is under way in the first executor", child=first)
    second = drill.start("timekeeper_executor")
    drill.wait_launched(second)
    seen = len(ticks(drill))
    wait_until(lambda: len(ticks(drill)) >= seen + 3, "three ticks of both executors")

    first.kill()
    held = chimes(drill.lines(), first.pid)
    last = ticks(drill)[-1]
    wait_until(
        lambda: last in (found := ticks(drill, "succeeded")) and len(found) > found.index(last) + 3,
        "the runs of the killed executor and three ticks of the second one",
    )

    found = ticks(drill, "succeeded")
    bodies = Counter(line["run"] for line in drill.lines() if line["what"] == "chimed")
    assert found == [found[0] + timedelta(seconds=number) for number in range(len(found))]
    assert {run for run, count in bodies.items() if count > 1} == set(held)
    assert set(held) <= (whole := {f"{timekeeper.SCHEDULE}:{tick.isoformat()}" for tick in found}) <= set(bodies)
    assert all(drill.rows("select attempt from timestep.runs where id = %s", run) == [(2,)] for run in held), whole
    assert second.pid not in drill.warm.codes


def chimes(lines: list[dict[str, Any]], pid: int) -> list[str]:
    """Return the runs whose tool has begun in a process."""
    return [line["run"] for line in lines if line["what"] == "chimed" and line["pid"] == pid]
