"""What a run is given, and where a RunState comes from: the stored run or snapshot that it goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import RunState

from timestep.run_state.envelope import Snapshot

Input = str | Sequence[Mapping[str, Any]] | RunState[Any]

_MARK = "_timestep_origin"
"""Attribute of a RunState in a program's hands that holds its origin; `Given.of` alone reads it."""


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


@dataclass(frozen=True, kw_only=True)
class Given:
    """The input of a run with the origin of it, which is None but for a RunState that Timestep has handed out.

    Made once, where a program gives its input, and passed down from there.
    """

    input: Input
    origin: Origin | None = None

    @classmethod
    def of(cls, given: Any) -> Given:
        """Return an input, of whatever type, with its origin."""
        return cls(input=given, origin=vars(given).get(_MARK) if isinstance(given, RunState) else None)

    @property
    def ended(self) -> Origin | None:
        """The origin, when the run that the state comes from has ended."""
        return self.origin if self.origin is not None and self.origin.is_final else None

    @property
    def snapshot_here(self) -> int | None:
        """The stored snapshot to go on from, when it is in the database of the process: its run claims it there."""
        origin = self._plain_snapshot()
        return origin.snapshot_id if origin is not None and origin.is_in_database_of_process else None

    @property
    def snapshot_elsewhere(self) -> Origin | None:
        """The stored snapshot to go on from, when it is in a file or in another database than the runs."""
        origin = self._plain_snapshot()
        return origin if origin is not None and not origin.is_in_database_of_process else None

    def _plain_snapshot(self) -> Origin | None:
        origin = self.origin
        return origin if origin is not None and origin.is_plain_snapshot and not origin.is_final else None


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


def note_end(state: RunState[Any], *, is_final: bool, output: Any) -> None:
    """Note on a state that was taken of a result whether its run has ended, which the state itself does not hold."""
    with_origin(state, Origin(is_final=is_final, output=output))
