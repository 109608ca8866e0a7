"""Where a RunState comes from: the stored run or snapshot that it goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import RunState

from timestep.run_state.envelope import Snapshot

_MARK = "_timestep_origin"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a state was read from.

    `run_id` and `segment` are those of the durable run that ended a segment with it; `snapshot_id` is the row of
    `run_states`, when it was read from one, in the database at `database_url` (None: that of the process), or in the
    file at `path`. `is_final`: the run has ended, with `output`.
    """

    run_id: str | None = None
    segment: int | None = None
    snapshot_id: int | None = None
    is_final: bool = False
    output: Any = None
    database_url: str | None = None
    path: Path | None = None

    @property
    def is_plain_snapshot(self) -> bool:
        """Whether it is a stored snapshot that belongs to no durable run."""
        return self.run_id is None and self.snapshot_id is not None

    @property
    def is_in_database_of_process(self) -> bool:
        """Whether the snapshot is where this process keeps its runs."""
        return self.path is None and self.database_url is None


def origin_of(state: object) -> Origin | None:
    """Return where a state comes from; None for one that a program has made itself."""
    return vars(state).get(_MARK) if isinstance(state, RunState) else None


def with_origin(state: RunState[Any], origin: Origin | None) -> RunState[Any]:
    """Note on a state where it comes from. It is not part of the state's JSON."""
    vars(state)[_MARK] = origin
    return state


def origin_of_snapshot(
    snapshot: Snapshot, *, output: Any, database_url: str | None = None, path: Path | None = None
) -> Origin:
    """Return the origin of the state of a stored snapshot; `output` is its final output as a value."""
    return Origin(
        run_id=snapshot.run_id,
        segment=snapshot.segment,
        snapshot_id=snapshot.id,
        is_final=snapshot.kind == "final",
        output=output,
        database_url=database_url,
        path=path,
    )


def snapshot_elsewhere(input_items: object) -> Origin | None:
    """Return where a state was loaded from that is kept in a file or in another database than the runs; else None."""
    origin = origin_of(input_items)
    if origin is None or origin.is_final or not origin.is_plain_snapshot or origin.is_in_database_of_process:
        return None
    return origin


def note_end(state: RunState[Any], *, is_final: bool, output: Any) -> None:
    """Note on a state that was taken of a result whether its run has ended, which the state itself does not hold."""
    with_origin(state, Origin(is_final=is_final, output=output))
