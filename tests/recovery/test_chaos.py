"""Executors that are killed, paused, cut off, ended and started, on a server that is killed, all at random.

In the end every run is done, no recorded step ran again, sessions are whole and nothing is stranded. The seed is
printed. Variables: `TIMESTEP_CHAOS_RUNS`, `TIMESTEP_CHAOS_SECONDS`, `TIMESTEP_CHAOS_PAUSE`, `TIMESTEP_CHAOS_TAKEOVER`
(the last three in seconds) and `TIMESTEP_CHAOS_SEED`.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from chaos import Chaos, problems
from drill import Drill, wait_until
from psycopg import OperationalError

LIMIT_SECONDS = 300


@pytest.mark.long
def test_no_run_is_lost_or_repeated_whatever_happens_to_executors_and_server(drill: Drill) -> None:
    seed = int(os.environ.get("TIMESTEP_CHAOS_SEED", random.randrange(2**32)))
    print(f"TIMESTEP_CHAOS_SEED={seed}")  # pytest shows it when the test fails
    chaos = Chaos(
        drill=drill,
        dice=random.Random(seed),
        takeover_seconds=_number("TAKEOVER", 1),
        pause_seconds=_number("PAUSE", 3),
    )
    agents = chaos.start_runs(int(_number("RUNS", 24)))
    began_at = time.monotonic()
    chaos.rage(_number("SECONDS", 10))
    raged_until = time.monotonic()
    chaos.calm()

    def is_over() -> bool:
        chaos.keep_going()
        try:
            return drill.rows("select 1 from timestep.runs where status in ('queued', 'running', 'interrupted')") == []
        except OperationalError:
            drill.server.ensure()
            return False

    wait_until(is_over, "every run is over", seconds=LIMIT_SECONDS)
    wait_until(
        lambda: not drill.rows("select 1 from dbos.workflow_status where status in ('PENDING', 'ENQUEUED')"),
        "every workflow is over",
    )
    print(
        f"{len(agents)} runs, {raged_until - began_at:.0f} s of chaos, {time.monotonic() - raged_until:.0f} s more: "
        + ", ".join(f"{count} {what}" for what, count in sorted(chaos.happened.items()))
    )
    found = problems(chaos, agents)
    assert not found, "\n".join(found[:40])


def _number(name: str, default: float) -> float:
    return float(os.environ.get(f"TIMESTEP_CHAOS_{name}", default))
