"""kill -9 at every step boundary, inside every step and around the transactions: nothing recorded runs again.

Each run of a batch is held at a point of its own; when all are there, the process is killed, and started again.
`make test` takes a few points, evenly spread, `make test-long` more; `TIMESTEP_SWEEP_POINTS` is another number, or
`all`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import comparison
import pytest
from comparison import Journal, Reference
from drill import Drill

FEW_POINTS, MANY_POINTS = "8", "32"
BATCH = 16
"""Runs in one process."""

Kill = tuple[int, dict[str, Journal]]
"""How long the side log was at a kill, and what was recorded of each run."""


@pytest.mark.parametrize("points", [FEW_POINTS, pytest.param(MANY_POINTS, marks=pytest.mark.long)])
def test_no_recorded_step_runs_again_wherever_the_executor_is_killed(
    drill: Drill, reference: Reference, points: str
) -> None:
    wanted, every = os.environ.get("TIMESTEP_SWEEP_POINTS", points), comparison.points_of(reference.history)
    chosen = every if wanted == "all" else comparison.spread(every, int(wanted))
    for first in range(0, len(chosen), BATCH):
        stops = {f"run-{point.replace(' ', '-')}": point for point in chosen[first : first + BATCH]}
        kill = _kill_at(drill, stops)
        drill.start("sweep", runs=list(stops)).end()
        assert not _problems(drill, list(stops), [kill], reference)


@pytest.mark.long
def test_runs_that_are_killed_again_and_again_end_as_if_they_never_were(drill: Drill, reference: Reference) -> None:
    every = comparison.points_of(reference.history)
    dice = random.Random(7)
    plans = {f"run-{number}": sorted(dice.sample(every, 3), key=every.index) for number in range(8)}
    kills = [_kill_at(drill, {run: plan[kill] for run, plan in plans.items()}, may_pass=True) for kill in range(3)]
    drill.start("sweep", runs=list(plans)).end()
    assert not _problems(drill, list(plans), kills, reference)


def test_runs_go_on_by_themselves_when_the_server_is_killed(drill: Drill, reference: Reference) -> None:
    every = [point for point in comparison.points_of(reference.history) if point != "finished"]
    stops = {f"run-{point.replace(' ', '-')}": point for point in comparison.spread(every, 16)}
    child = drill.start("sweep", stops=stops, runs=list(stops))
    comparison.wait_stopped(drill, child, stops, after=0)
    kill = len(drill.lines()), {run: comparison.journal(drill, run) for run in stops}
    drill.kill_server()
    drill.release()
    child.end()
    assert not _problems(drill, list(stops), [kill], reference)
    started = [(line["run"], line["name"], line.get("step")) for line in drill.lines() if line["what"] == "start"]
    assert len(started) == len(set(started)), "a process that lives runs no body twice"


def test_idempotency_keys_are_unique_in_a_run(reference: Reference) -> None:
    assert all(len(found) == 1 for found in reference.keys.values())
    assert len(set.union(*reference.keys.values())) == len(reference.keys) > 10


def test_without_reserved_step_ids_the_sweep_fails(drill: Drill, reference: Reference) -> None:
    stops = {f"run-{point.replace(' ', '-')}": point for point in ("end 14", "recorded 22", "close before")}
    kill = _kill_at(drill, stops, has_reservation=False)
    drill.start("sweep", runs=list(stops), has_reservation=False).end()
    found = _problems(drill, list(stops), [kill], reference, but=("history",))
    assert "run-close-before" in found  # everything is recorded there, in an order that no replay takes


def _kill_at(drill: Drill, stops: dict[str, str], *, may_pass: bool = False, **arguments: object) -> Kill:
    """Start the runs, and kill the process when each of them is at its point."""
    before = len(drill.lines())
    child = drill.start("sweep", stops=stops, runs=list(stops), **arguments)
    comparison.wait_stopped(drill, child, stops, after=before, may_pass=may_pass)
    child.kill()
    return len(drill.lines()), {run: comparison.journal(drill, run) for run in stops}


def _problems(
    drill: Drill, runs: Sequence[str], kills: list[Kill], reference: Reference, *, but: Sequence[str] = ()
) -> dict[str, object]:
    """Return what is wrong with the recovered runs; `but` is what is not looked at."""
    lines = drill.lines()
    found: dict[str, object] = {}
    for run in runs:
        left = comparison.left_by(drill, run)
        other = {name: left[name] for name in left if name not in but and left[name] != reference.left[name]}
        again = [line for length, journals in kills for line in comparison.repeated(lines[length:], run, journals[run])]
        if other or again:
            found[run] = {"recorded steps ran again": again, "left something else": other}
        elif not but and comparison.keys_of(lines, run) != reference.keys:
            found[run] = {"other idempotency keys": comparison.keys_of(lines, run)}
    return found
