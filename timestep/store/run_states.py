"""Snapshots: `run_states`."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import sqlalchemy as sa

from timestep.errors import RunStateNotFoundError, SnapshotAlreadyResumed
from timestep.run_state.envelope import PLAIN, Snapshot
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
_COLUMNS = (
    *(run_states.c[name] for name in SNAPSHOT_COLUMNS),
    *(run_states.c.id, run_states.c.resumed_by, run_states.c.resumed_at),
    _IS_INTACT,
)

LOCK_PREFIX = "timestep-snapshot:"
"""Who goes on from a snapshot in a plain run holds the session lock `hashtextextended(LOCK_PREFIX || id, 0)`."""

_LOCK_KEY = f"hashtextextended('{LOCK_PREFIX}' || {{}}, 0)"
_IS_FREE = """(s.resumed_by is null or exists (
  select from timestep.runs r where r.id = s.resumed_by and r.status in ('failed', 'cancelled')))"""

CLAIM_FOR_RUN = f"""
update timestep.run_states s set
  resumed_by = :id, resumed_at = case when s.resumed_by = :id then s.resumed_at else now() end
where s.id = :resumes_snapshot
  and (s.resumed_by = :id or ({_IS_FREE} and pg_try_advisory_xact_lock({_LOCK_KEY.format("s.id")})))
returning s.id"""
"""Claim a snapshot for the run `:id`, in the transaction that makes its row. A failed run has given its claim back."""

_IS_CLAIMABLE = sa.text(f"select s.resumed_by = :by or {_IS_FREE} from timestep.run_states s where s.id = :id")
_CLAIM = sa.text(
    f"update timestep.run_states s set resumed_by = :by, resumed_at = now() where s.id = :id and {_IS_FREE}"
)


def save_snapshot(connection: sa.Connection, snapshot: Snapshot) -> int:
    """Store the snapshot and return its id; a snapshot that has an id already is stored as a new one."""
    return connection.execute(_INSERT, {name: getattr(snapshot, name) for name in SNAPSHOT_COLUMNS}).scalar_one()


def latest_snapshot(connection: sa.Connection, session_id: str) -> Snapshot | None:
    """Return the session's newest active snapshot; None when there is none."""
    return _newest(connection, run_states.c.session_id == session_id, run_states.c.is_active)


def find_snapshot(connection: sa.Connection, snapshot_id: int, session_id: str | None = None) -> Snapshot | None:
    """Return a snapshot by its id, of a session when one is given, cleared or not; None when there is none."""
    of_session = () if session_id is None else (run_states.c.session_id == session_id,)
    return _newest(connection, run_states.c.id == snapshot_id, *of_session)


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


def claim_for_run(connection: sa.Connection, snapshot_id: int, *, run_id: str) -> None:
    """Claim a snapshot for a run that is stored in the same transaction. May be repeated.

    Raises:
        SnapshotAlreadyResumed: somebody goes on from it, or has.
    """
    claim = sa.text(CLAIM_FOR_RUN)
    if connection.execute(claim, {"id": run_id, "resumes_snapshot": snapshot_id}).first() is None:
        raise already_resumed(find_snapshot(connection, snapshot_id), snapshot_id)


def try_hold(connection: psycopg.Connection[Any], snapshot_id: int) -> bool:
    """Hold a snapshot's lock for as long as the connection lives; False when somebody else holds it."""
    query = f"select pg_try_advisory_lock({_LOCK_KEY.format('%s')})"
    row = connection.execute(query.encode(), [str(snapshot_id)]).fetchone()
    return bool(row and row[0])


def let_go(connection: psycopg.Connection[Any]) -> None:
    """Give up what `try_hold` holds, for the next one at once: the end of a connection is noticed a moment later."""
    with contextlib.suppress(psycopg.Error):  # the lock ends with a connection that is broken
        connection.execute(b"select pg_advisory_unlock_all()")


def check_unclaimed(connection: sa.Connection, snapshot_id: int, *, by: str | None) -> None:
    """Refuse a snapshot that somebody has gone on from; `by` is the workflow that may do so again.

    Raises:
        RunStateNotFoundError: it is not there any more.
        SnapshotAlreadyResumed: somebody has.
    """
    is_free = connection.execute(_IS_CLAIMABLE, {"id": snapshot_id, "by": by}).first()
    if is_free is None:
        raise RunStateNotFoundError(f"The snapshot {snapshot_id} is not stored any more.")
    if not is_free[0]:
        raise already_resumed(find_snapshot(connection, snapshot_id), snapshot_id)


def note_resumed(connection: sa.Connection, snapshot_id: int, *, by: str | None) -> bool:
    """Note that a run has gone on from a snapshot; False when somebody else has meanwhile."""
    return connection.execute(_CLAIM, {"id": snapshot_id, "by": by or PLAIN}).rowcount == 1


def already_resumed(snapshot: Snapshot | None, snapshot_id: int) -> SnapshotAlreadyResumed:
    """Return the error that says who goes on from a snapshot, or has."""
    if snapshot is None or snapshot.resumed_by is None:
        return SnapshotAlreadyResumed(f"Another run goes on from the snapshot {snapshot_id} now.")
    who = "a plain run" if snapshot.resumed_by == PLAIN else f"the run {snapshot.resumed_by!r}"
    return SnapshotAlreadyResumed(f"The snapshot {snapshot_id} was resumed by {who} at {snapshot.resumed_at}.")


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
