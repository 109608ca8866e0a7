"""kill -9 with models of Ollama, streamed from a server that nobody here wrote: no finished turn is asked for again.

As in `test_kill_sweep.py` each run is held at a point of its own, and the process is killed when all are there; a model
turn is held when the first piece of its answer has come. `TIMESTEP_OLLAMA_SWEEP_POINTS` is the number of points.
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comparison
import pytest
from drill import Drill

from timestep.ids import STEP_CLOSE_STREAM

HERE = Path(__file__).parent

from aimock_server import journal_of, serve_aimock  # noqa: E402

DEFAULT_POINTS = "10"
BATCH = 24
"""Runs that are held at once."""
MODEL_TURNS = 13
"""Five of the desk and the clerk, two of each of the four sub-agents."""

_DRAWN = re.compile(r"(call|fc|msg|rs)_[A-Za-z0-9]{24}")


@pytest.fixture
def url() -> Iterator[str]:
    with serve_aimock(HERE / "ollama_answers.json") as url:
        yield url


def left_by(drill: Drill, run: str) -> dict[str, Any]:
    """Return what a run left, without the ids that each run draws for itself.

    Who is killed when the run is stored leaves no end of the stream: readers look at the run's row.
    """
    left = {name: _DRAWN.sub(r"\1", text) for name, text in comparison.left_by(drill, run).items()}
    steps = [(step, _DRAWN.sub(r"\1", name)) for step, name in comparison.journal(drill, run)]
    return {
        **{name: sorted(text.splitlines()) if name in ("calls", "usage") else text for name, text in left.items()},
        "history": sorted(step for step in steps if step[1] != STEP_CLOSE_STREAM),
    }


@pytest.mark.long
def test_no_finished_turn_is_asked_for_again_wherever_the_executor_is_killed(drill: Drill, url: str) -> None:
    drill.start("sweep", runs=["reference"], ollama_url=url).end()
    reference, history = left_by(drill, "reference"), comparison.journal(drill, "reference")
    assert drill.status("reference") == "succeeded", drill.lines()[-1]
    assert len(journal_of(url)) == MODEL_TURNS == sum("model_turn" in name for _, name in history)

    every, wanted = comparison.points_of(history), os.environ.get("TIMESTEP_OLLAMA_SWEEP_POINTS", DEFAULT_POINTS)
    chosen = every if wanted == "all" else comparison.spread(every, int(wanted))
    for first in range(0, len(chosen), BATCH):
        stops = {f"run-{point.replace(' ', '-')}": point for point in chosen[first : first + BATCH]}
        before = len(drill.lines())
        child = drill.start("sweep", stops=stops, runs=list(stops), ollama_url=url)
        comparison.wait_stopped(drill, child, stops, after=before)
        child.kill()
        at_kill, recorded = len(drill.lines()), {run: comparison.journal(drill, run) for run in stops}
        drill.start("sweep", runs=list(stops), ollama_url=url).end()
        for run in stops:
            assert not comparison.repeated(drill.lines()[at_kill:], run, recorded[run]), run
            assert left_by(drill, run) == reference, run

    lines = [line for line in drill.lines() if line.get("kind") == "model"]
    said = collections.Counter(line["what"] for line in lines)
    # Who is killed when a call has begun may not have sent it yet.
    assert MODEL_TURNS * (len(chosen) + 1) <= said["end"] <= len(journal_of(url)) <= said["start"]
