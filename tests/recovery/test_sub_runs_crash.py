"""A tool that waits for the runs it has started, in a process that dies: nothing is started twice."""

from __future__ import annotations

from collections import Counter

import spreader
import timekeeper
from drill import Drill


def test_the_repeated_tool_finds_its_runs_and_waits_for_them(drill: Drill) -> None:
    first = drill.start("spread_executor", environment={timekeeper.HOLD_VARIABLE: "1"}, runs=["one"])
    drill.wait_lines(
        lambda lines: sum(line["what"] == "chimed" for line in lines) == spreader.RUNS,
        "every sub-run is under way",
        child=first,
    )
    first.kill()
    drill.start("spread_executor")
    drill.wait_status("one", "succeeded", "failed")

    expected = [f"one:1:c1:{number + 1}" for number in range(spreader.RUNS)]
    children = drill.rows("select id, status, parent_run_id from timestep.runs where id <> 'one' order by id")
    assert children == [(each, "succeeded", "one") for each in expected]
    assert drill.rows("select output::text from timestep.runs where id = 'one'") == [(f'"{" ".join(expected)}"',)]
    bodies = Counter((line["what"], line["run"]) for line in drill.lines() if line["what"] in ("spread", "chimed"))
    assert bodies == {("spread", "one"): 2, **{("chimed", each): 2 for each in expected}}
