"""Queues over several executors: the order of sessions under load and over kills, and a rate limit."""

from __future__ import annotations

import itertools
import os
from typing import Any

from drill import Child, Drill, wait_until

RUNS = int(os.environ.get("TIMESTEP_SESSION_RUNS", "8"))
SESSIONS = ("ann", "bob", "cem")


def executors(drill: Drill, number: int, **arguments: Any) -> list[Child]:
    children = [drill.start("walker_executor", **arguments) for _ in range(number)]
    for child in children:
        drill.wait_launched(child)
    return children


def walks(drill: Drill, *sessions: str) -> list[tuple[str, str]]:
    """Return what the tools of these sessions' runs have written, a killed attempt's beginning left out."""
    lines = [
        (line["what"], line["run"])
        for line in drill.lines()
        if line["what"] in ("walks", "walked") and line["run"].startswith(sessions)
    ]
    return [line for number, line in enumerate(lines) if line not in lines[number + 1 :]]


def finished(drill: Drill) -> int:
    return drill.rows("select count(*) from timestep.runs where status = 'succeeded'")[0][0]


def test_the_runs_of_a_session_keep_their_order_over_three_executors_of_which_one_is_killed(drill: Drill) -> None:
    first, *_ = executors(drill, 3)
    names = [f"{session}-{number:02}" for number in range(RUNS) for session in SESSIONS]
    runs = [{"input_items": "walk", "workflow_id": name, "session_id": name.partition("-")[0]} for name in names]
    drill.start("walker_queue", runs=runs).end()
    wait_until(lambda: finished(drill) >= len(names) // 3, "a third is done")
    first.kill()
    wait_until(lambda: finished(drill) == len(names), "all are done")

    for session in SESSIONS:
        mine = [name for name in names if name.startswith(session)]
        assert walks(drill, session) == [(what, name) for name in mine for what in ("walks", "walked")]
        saw = drill.rows("select output::text from timestep.runs where session_id = %s order by session_place", session)
        assert [int(row[0].strip('"')) for row in saw] == [4 * number + 3 for number in range(RUNS)], "whole turns"
    assert drill.rows("select count(*) from timestep.session_queue") == [(0,)]


def test_a_run_that_waits_for_a_person_holds_nobody_and_goes_on_before_the_others(drill: Drill) -> None:
    environment = {"RECOVERY_STOPS": '{"b": "walk"}'}
    children = [drill.start("walker_executor", environment=environment) for _ in range(2)]
    for child in children:
        drill.wait_launched(child)
    inputs = {"a": "ask", "b": "walk", "c": "walk", "d": "walk"}
    runs = [{"input_items": text, "workflow_id": name, "session_id": "s"} for name, text in inputs.items()]
    drill.start("walker_queue", runs=runs).end()
    drill.wait_status("a", "interrupted")
    wait_until(lambda: ("walks", "b") in walks(drill, "b"), "b runs")
    [(approval,)] = drill.rows("select id from timestep.approvals where run_id = 'a'")
    drill.rows("select timestep.decide(%s, 'approved', 'alice')", approval)
    assert drill.status("a") == "queued"
    assert drill.workflow_status("a~2") is None, "b has the session"
    drill.release()
    wait_until(lambda: finished(drill) == 4, "all are done")

    assert [run for what, run in walks(drill, *"abcd") if what == "walks"] == ["b", "a", "c", "d"]


def test_three_executors_together_keep_to_a_rate_limit(drill: Drill) -> None:
    executors(drill, 3, limits={"rate_limit": 4, "rate_period_seconds": 2, "worker_concurrency": 1})
    names = [f"run-{number}" for number in range(12)]
    drill.start("walker_queue", runs=[{"input_items": "walk", "workflow_id": name} for name in names]).end()
    wait_until(lambda: finished(drill) == len(names), "all are done")

    rows = drill.rows(
        "select started_at_epoch_ms, executor_id from dbos.workflow_status where queue_name = 'walks' order by 1"
    )
    starts = [row[0] for row in rows]
    assert len(starts) == len(names)
    assert len({row[1] for row in rows}) > 1, "one at a time, no executor takes them all"
    gaps = [later - earlier for earlier, later in zip(starts, itertools.islice(starts, 4, None), strict=False)]
    assert min(gaps) >= 2000, "a start that is as old as the period counts no more"
