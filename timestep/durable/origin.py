"""Where a RunState comes from: the stored run or snapshot that it goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents import RunState

from timestep.run_state.envelope import Snapshot

_MARK = "_timestep_origin"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a state was read from.

    `run_id` and `segment` are those of the durable run that ended a segment with it; `snapshot_id` is the row of
    `run_states`, when it was read from one. `is_final`: the run has ended, with `output`.
    """

    run_id: str | None = None
    segment: int | None = None
    snapshot_id: int | None = None
    is_final: bool = False
    output: Any = None


def origin_of(state: object) -> Origin | None:
    """Return where a state comes from; None for one that a program has made itself."""
    return vars(state).get(_MARK) if isinstance(state, RunState) else None


def with_origin(state: RunState[Any], origin: Origin | None) -> RunState[Any]:
    """Note on a state where it comes from. It is not part of the state's JSON."""
    vars(state)[_MARK] = origin
    return state


def origin_of_snapshot(snapshot: Snapshot) -> Origin:
    """Return the origin of the state of a stored snapshot."""
    return Origin(
        run_id=snapshot.run_id,
        segment=snapshot.segment,
        snapshot_id=snapshot.id,
        is_final=snapshot.kind == "final",
        output=snapshot.output,
    )
