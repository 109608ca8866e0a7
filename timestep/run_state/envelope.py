"""The envelope of a snapshot: the writer's own RunState JSON, and what must be known to read it.

Python and JavaScript count `$schemaVersion` apart, so the number means nothing without the
name of the writer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from timestep.errors import InvalidInputError

PLAIN = "plain"
"""Who resumed a snapshot, for a run that has no id."""

Sdk = Literal["python", "javascript"]
SnapshotKind = Literal["interrupted", "final", "checkpoint", "saved"]
"""interrupted: waits for a decision. final: the run is done. checkpoint: ready for the next turn.
saved: it has not begun."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A stored RunState. `state` is the writer's JSON, untouched; `id` is None until it is stored.

    `resumed_by` is the run that went on from it, or `PLAIN`.
    `is_saved`: a program saved it, it is not the end of a segment. `is_intact`: the text of `state` has the digest that
    was stored with it.
    """

    run_id: str | None
    session_id: str | None
    segment: int | None
    kind: SnapshotKind
    agent: str
    sdk: Sdk
    sdk_version: str
    schema_version: str
    state: dict[str, Any]
    output: Any = None
    held_items: list[dict[str, Any]] | None = None
    mcp_tools: dict[str, Any] | None = None
    is_saved: bool = False
    id: int | None = None
    resumed_by: str | None = None
    resumed_at: datetime | None = None
    is_intact: bool = True


def python_snapshot(
    state: dict[str, Any],
    *,
    agent: str,
    sdk_version: str,
    run_id: str | None = None,
    session_id: str | None = None,
    segment: int | None = None,
    kind: SnapshotKind | None = None,
    output: Any = None,
    held_items: list[dict[str, Any]] | None = None,
    mcp_tools: dict[str, Any] | None = None,
    is_saved: bool = False,
) -> Snapshot:
    """Return the envelope of what the Python SDK's `RunState.to_json()` returned.

    Without a `kind` it is read from the state.

    Raises:
        InvalidInputError: `state` is not the JSON of a RunState.
    """
    return Snapshot(
        run_id=run_id,
        session_id=session_id,
        segment=segment,
        kind=kind or kind_of(state),
        agent=agent,
        sdk="python",
        sdk_version=sdk_version,
        schema_version=schema_version_of(state),
        state=state,
        output=output,
        held_items=held_items,
        mcp_tools=mcp_tools,
        is_saved=is_saved,
    )


def schema_version_of(state: dict[str, Any]) -> str:
    """Return the `$schemaVersion` of a RunState's JSON, of either SDK.

    Raises:
        InvalidInputError: there is none.
    """
    version = state.get("$schemaVersion")
    if not isinstance(version, str) or not version:
        raise InvalidInputError(
            f"The run state has no $schemaVersion; its keys are {sorted(state)[:5]}.",
            hint="Save what `RunState.to_json()` or `RunState.to_string()` wrote, whole.",
        )
    return version


def kind_of(state: dict[str, Any]) -> SnapshotKind:
    """Return what the JSON of a Python RunState is a snapshot of.

    A finished run has no current step and at least one model response; without a response it has not begun.
    """
    step = state.get("current_step")
    step_type = step.get("type") if isinstance(step, dict) else None
    if step_type == "next_step_interruption":
        return "interrupted"
    if step_type == "next_step_run_again":
        return "checkpoint"
    return "final" if state.get("model_responses") else "saved"
