"""Snapshots: `run_states`."""

from __future__ import annotations

import sqlalchemy as sa

from timestep.run_state.envelope import Snapshot
from timestep.store.tables import JSON, run_states

SNAPSHOT_COLUMNS = (
    "run_id",
    "session_id",
    "segment",
    "kind",
    "agent",
    "sdk",
    "sdk_version",
    "schema_version",
    "state",
    "output",
    "held_items",
    "mcp_tools",
    "is_saved",
)
"""What a snapshot is stored with; its digest is made of the text that is stored."""

DIGEST = "encode(sha256(convert_to({}, 'UTF8')), 'hex')"
_INSERT = sa.text(
    f"insert into timestep.run_states ({', '.join(SNAPSHOT_COLUMNS)}, digest) "
    f"values ({', '.join(':' + name for name in SNAPSHOT_COLUMNS)}, {DIGEST.format('cast(:state as text)')}) "
    "returning id"
).bindparams(*(sa.bindparam(name, type_=JSON) for name in ("state", "output", "held_items", "mcp_tools")))
_IS_INTACT = sa.text(f"(digest is null or digest = {DIGEST.format('state::text')}) as is_intact")
_COLUMNS = (*(run_states.c[name] for name in SNAPSHOT_COLUMNS), run_states.c.id, run_states.c.resumed_by, _IS_INTACT)


def save_snapshot(connection: sa.Connection, snapshot: Snapshot) -> int:
    """Store the snapshot and return its id; a snapshot that has an id already is stored as a new one."""
    return connection.execute(_INSERT, {name: getattr(snapshot, name) for name in SNAPSHOT_COLUMNS}).scalar_one()


def latest_snapshot(connection: sa.Connection, session_id: str) -> Snapshot | None:
    """Return the session's newest active snapshot; None when there is none."""
    return _newest(connection, run_states.c.session_id == session_id, run_states.c.is_active)


def latest_of_run(connection: sa.Connection, run_id: str) -> Snapshot | None:
    """Return the newest snapshot with which a segment of the run ended, cleared or not: the run still needs it."""
    return _newest(connection, run_states.c.run_id == run_id, run_states.c.is_saved.is_(False))


def interruption_of_run(connection: sa.Connection, run_id: str, segment: int) -> Snapshot | None:
    """Return the snapshot with which a segment of a run was interrupted; None when there is none."""
    of_segment = run_states.c.run_id == run_id, run_states.c.segment == segment, run_states.c.kind == "interrupted"
    return _newest(connection, *of_segment, run_states.c.is_saved.is_(False))


def claim_snapshot(connection: sa.Connection, snapshot_id: int, *, resumed_by: str) -> bool:
    """Note who goes on from a snapshot; False when somebody has before."""
    change = sa.update(run_states).where(run_states.c.id == snapshot_id, run_states.c.resumed_by.is_(None))
    return connection.execute(change.values(resumed_by=resumed_by, resumed_at=sa.func.now())).rowcount == 1


def deactivate(connection: sa.Connection, session_id: str) -> int:
    """Keep the session's snapshots, but load them no longer; return how many that were."""
    change = (
        sa.update(run_states)
        .where(run_states.c.session_id == session_id, run_states.c.is_active)
        .values(is_active=False)
    )
    return connection.execute(change).rowcount


def _newest(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Snapshot | None:
    query = sa.select(*_COLUMNS).where(*conditions).order_by(run_states.c.id.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else Snapshot(**row)
