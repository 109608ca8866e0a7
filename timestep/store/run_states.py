"""Snapshots: `run_states`."""

from __future__ import annotations

import sqlalchemy as sa

from timestep.run_state.envelope import Snapshot
from timestep.store.tables import run_states

_INSERT = sa.insert(run_states).returning(run_states.c.id)
_COLUMNS = (
    run_states.c.id,
    run_states.c.run_id,
    run_states.c.session_id,
    run_states.c.segment,
    run_states.c.kind,
    run_states.c.agent,
    run_states.c.sdk,
    run_states.c.sdk_version,
    run_states.c.schema_version,
    run_states.c.state,
    run_states.c.output,
    run_states.c.held_items,
)


SNAPSHOT_COLUMNS = tuple(name for name in Snapshot.__dataclass_fields__ if name != "id")


def save_snapshot(connection: sa.Connection, snapshot: Snapshot) -> int:
    """Store the snapshot and return its id; a snapshot that has an id already is stored as a new one."""
    row = {key: value for key, value in vars(snapshot).items() if key != "id"}
    return connection.execute(_INSERT, row).scalar_one()


def latest_snapshot(connection: sa.Connection, session_id: str) -> Snapshot | None:
    """Return the session's newest active snapshot; None when there is none."""
    return _newest(connection, run_states.c.session_id == session_id, run_states.c.is_active)


def latest_of_run(connection: sa.Connection, run_id: str) -> Snapshot | None:
    """Return the run's newest snapshot, cleared or not: the run still needs it. None when there is none."""
    return _newest(connection, run_states.c.run_id == run_id)


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
