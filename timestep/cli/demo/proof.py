"""What the demo proves: the bodies' own log, held against what Postgres had recorded at each kill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from timestep.cli.demo.side_log import LogLine


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A kill: which steps Postgres had recorded, and how many lines the log had."""

    pid: int
    recorded: frozenset[int]
    lines: int


@dataclass(frozen=True, kw_only=True)
class Count:
    """Calls of one kind.

    `needed` is the number of different steps, `made` that of bodies that were started. `under_way` were started and
    not recorded when their process was killed, so they were made again; `finished_again` were recorded and
    made again all the same: that must not happen.
    """

    needed: int
    made: int
    under_way: int
    finished_again: int


def count_calls(lines: Sequence[LogLine], kills: Sequence[Kill], *, kind: str) -> Count:
    """Count the calls of a kind in the log of all processes."""
    starts = [(number, line) for number, line in enumerate(lines) if line.phase == "start" and line.kind == kind]
    again = sum(
        any(number >= kill.lines and line.step_id in kill.recorded for kill in kills) for number, line in starts
    )
    needed = len({line.step_id for _, line in starts})
    return Count(needed=needed, made=len(starts), under_way=len(starts) - needed - again, finished_again=again)
