"""kill -9 at every point of an interruption: its closing, its decisions, the start of the next segment, its steps.

Runs are decided while no executor lives, and go on under another application version. Each approved call runs once
as far as its step was recorded, each rejected one never, and nothing is lost.
"""

from __future__ import annotations

import json
from typing import Any

import comparison
import pytest
from drill import Child, Drill

CLOSE = ["close before", "close uncommitted", "close after"]
DECIDE = ["decide before", "decide uncommitted", "decide after"]
RESUME = ["resume before", "claim uncommitted", "claim after"]
START = ["start before", "start uncommitted", "start after"]
STEPS = [f"{where} {step}" for step in (2, 4, 5, 6) for where in ("begin", "body", "end", "recorded")]
"""Of the second segment: the approved payment, a turn, the filing, a turn; the calls of the first turn are 1 to 3."""

SECOND = ["tool_call:1:pay:pay_1", "model_turn:2:till", "tool_call:2:file:file", "model_turn:3:till"]
OUTPUT = "Too much; filed; looked; paid 1"
NEXT_VERSION = {"TIMESTEP_APPLICATION_VERSION": "2"}


def name_of(point: str, segment: int = 1) -> str:
    return f"run-{segment}-{point.replace(' ', '-')}"


@pytest.mark.long
def test_nothing_is_lost_or_done_twice_wherever_a_process_is_killed(drill: Drill) -> None:
    first = {name_of(point): point for point in CLOSE}
    decided = {name_of(point): point for point in DECIDE}
    second = {name_of(point, 2): point for point in [*START, *STEPS, *CLOSE]}
    runs = [*first, *decided, *second]
    kill(drill, drill.start("till_executor", runs=runs, stops=first), first, waits=[*decided, *second])
    child = drill.start("till_executor")
    wait_interrupted(drill, runs)
    child.kill()

    kill(drill, drill.start("decider", runs=runs, stops=decided), decided)  # nobody executes now
    drill.start("decider", runs=runs).end()

    stops = {f"{run}~2": point for run, point in second.items()}
    child = drill.start("till_executor", stops=stops, environment=NEXT_VERSION)
    drill.wait_reached(*stops, child=child)
    child.kill()
    recorded = {run: comparison.journal(drill, f"{run}~2") for run in runs}
    length = len(drill.lines())
    finish(drill, runs)

    for run in runs:
        assert left_by(drill, run) == left_by(drill, runs[-1])
        assert not comparison.repeated(drill.lines()[length:], f"{run}~2", recorded[run])


def test_a_program_that_resumes_goes_on_wherever_it_is_killed(drill: Drill) -> None:
    stops = {name_of(point): point for point in RESUME}
    runs = [*stops]
    child = drill.start("till_executor", runs=runs)
    wait_interrupted(drill, runs)
    child.kill()

    kill(drill, drill.start("till_executor", resumed=runs, stops=stops), stops)
    child = drill.start("till_executor", resumed=runs)

    def have_finished(lines: list[dict[str, Any]]) -> bool:
        return {line["run"] for line in lines if line["what"] == "finished" and line["pid"] == child.pid} == {*runs}

    drill.wait_lines(have_finished, "all have resumed", child=child)
    finish(drill, runs, child=child)


def kill(drill: Drill, child: Child, stops: dict[str, str], *, waits: list[str] | None = None) -> None:
    """Kill a process when its runs are at their points and the others wait for a person."""
    drill.wait_reached(*stops, child=child)
    wait_interrupted(drill, waits or [])
    child.kill()


def wait_interrupted(drill: Drill, runs: list[str]) -> None:
    for run in runs:
        drill.wait_status(run, "interrupted")


def finish(drill: Drill, runs: list[str], *, child: Child | None = None) -> None:
    """Let the runs end, and check what each has left."""
    child = child or drill.start("till_executor", environment=NEXT_VERSION)
    for run in runs:
        drill.wait_status(run, "succeeded", "failed")
    (drill.folder / "end").touch()
    child.end()
    for run in runs:
        left = left_by(drill, run)
        assert left["output"] == [(json.dumps(OUTPUT),)]
        assert [name for (name,) in left["steps"]] == SECOND
        assert left["usage"] == [("model_turn:1:till",), ("model_turn:2:till",), ("model_turn:3:till",)]
        assert left["items"] == [(10, 10)]
        assert not [line for line in drill.lines() if line["run"].startswith(run + "~") and line.get("name") == "pay 2"]


def left_by(drill: Drill, run: str) -> dict[str, list[object]]:
    queries = {
        "output": "select output::text from timestep.runs where id = %s",
        "run": "select status, segment, closed_segment, requests, input_tokens from timestep.runs where id = %s",
        "steps": "select function_name from dbos.operation_outputs where workflow_uuid = %s || '~2' "
        "order by function_id",
        "usage": "select step from timestep.usage where run_id = %s order by step",
        "calls": "select call_key, segment, result::text from timestep.tool_calls where run_id = %s order by 1",
        "items": "select count(*), count(distinct item::text) from timestep.session_items where run_id = %s",
        "asked": "select call_id, status, reason, consumed_at is not null from timestep.approvals where run_id = %s "
        "order by place",
        "states": "select segment, kind from timestep.run_states where run_id = %s order by id",
    }
    return {name: drill.rows(query, run) for name, query in queries.items()}
