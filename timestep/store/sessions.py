"""Conversations: `sessions` and `session_items`.

A writer first raises `sessions.last_position`, which locks the session's row. So positions rise in the order
of the commits, are never given twice, and two writers never meet. Writers in other languages do the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from timestep.records import StoredSession
from timestep.store.tables import JSON, runs, session_items, sessions
from timestep.words import FINISHED

MOST_RUN_IDS = 100
"""Run ids of one session that are listed."""

_INSERT = sa.text("""
insert into timestep.session_items (session_id, position, run_id, item)
select :session_id, :first + place - 1, :run_id, item
from json_array_elements(:items) with ordinality as given (item, place)""").bindparams(
    sa.bindparam("items", type_=JSON)
)
_RAISE = (
    insert(sessions)
    .values(id=sa.bindparam("id"), last_position=sa.bindparam("last_position"))
    .on_conflict_do_update(
        index_elements=[sessions.c.id],
        set_={"last_position": sessions.c.last_position + sa.bindparam("count"), "updated_at": sa.func.now()},
    )
    .returning(sessions.c.last_position)
)


def read_items(
    connection: sa.Connection, session_id: str, *, limit: int | None = None, up_to_position: int | None = None
) -> list[dict[str, Any]]:
    """Return the items in order; the latest `limit` of them, of those stored up to `up_to_position`."""
    if limit is not None and limit <= 0:
        return []
    query = sa.select(session_items.c.item).where(session_items.c.session_id == session_id)
    if up_to_position is not None:
        query = query.where(session_items.c.position <= up_to_position)
    if limit is None:
        return list(connection.execute(query.order_by(session_items.c.position)).scalars())
    latest = connection.execute(query.order_by(session_items.c.position.desc()).limit(limit)).scalars().all()
    return list(reversed(latest))


def last_position(connection: sa.Connection, session_id: str) -> int:
    """Return the highest position ever given in the session; 0 when there is no such session."""
    query = sa.select(sessions.c.last_position).where(sessions.c.id == session_id)
    return connection.execute(query).scalar() or 0


def append_items(
    connection: sa.Connection,
    session_id: str,
    items: Sequence[Mapping[str, Any]],
    *,
    run_id: str | None = None,
) -> int:
    """Add `items` at the end and return how many; makes the session if it is not there.

    The session stays locked until the transaction ends.
    """
    if not items:
        return 0
    first = _take_positions(connection, session_id, len(items))
    values = {"session_id": session_id, "first": first, "run_id": run_id, "items": list(items)}
    connection.execute(_INSERT, values)
    return len(items)


def append_items_once(
    connection: sa.Connection, session_id: str, items: Sequence[Mapping[str, Any]], *, run_id: str
) -> int:
    """Add `items` unless items of `run_id` are there already; return how many were added. May be repeated."""
    _touch(connection, session_id)
    known = sa.select(session_items.c.position).where(
        session_items.c.session_id == session_id, session_items.c.run_id == run_id
    )
    if connection.execute(known.limit(1)).first() is not None:
        return 0
    return append_items(connection, session_id, items, run_id=run_id)


def pop_item(connection: sa.Connection, session_id: str) -> dict[str, Any] | None:
    """Remove the last item and return it; None when there is none."""
    if not _touch(connection, session_id):
        return None
    last = (
        sa.select(sa.func.max(session_items.c.position))
        .where(session_items.c.session_id == session_id)
        .scalar_subquery()
    )
    removed = (
        sa.delete(session_items)
        .where(session_items.c.session_id == session_id, session_items.c.position == last)
        .returning(session_items.c.item)
    )
    return connection.execute(removed).scalar()


def clear_session(connection: sa.Connection, session_id: str) -> None:
    """Remove every item; the session itself stays, and its positions go on rising."""
    if _touch(connection, session_id):
        connection.execute(sa.delete(session_items).where(session_items.c.session_id == session_id))


def list_sessions(connection: sa.Connection, *, limit: int) -> list[StoredSession]:
    """Return the sessions that have items, those first that were changed last."""
    has_items = sa.exists().where(session_items.c.session_id == sessions.c.id)
    newest = sa.select(sessions.c.id).where(has_items).order_by(sessions.c.updated_at.desc(), sessions.c.id)
    ids = connection.execute(newest.limit(limit)).scalars().all()
    found = (find_session(connection, session_id) for session_id in ids)
    return [each for each in found if each is not None]


def find_session(connection: sa.Connection, session_id: str) -> StoredSession | None:
    """Return a session; None when it has neither items nor runs."""
    items = sa.select(sa.func.count()).where(session_items.c.session_id == session_id)
    of_session = runs.c.session_id == session_id
    row = connection.execute(sa.select(sessions).where(sessions.c.id == session_id)).mappings().first()
    newest = sa.select(runs.c.id).where(of_session).order_by(runs.c.created_at.desc(), runs.c.id.desc())
    unfinished = sa.select(runs.c.id).where(of_session, runs.c.status.not_in(FINISHED))
    found = StoredSession(
        session_id=session_id,
        items=connection.execute(items).scalar_one(),
        runs=connection.execute(sa.select(sa.func.count()).where(of_session)).scalar_one(),
        run_ids=connection.execute(newest.limit(MOST_RUN_IDS)).scalars().all(),
        unfinished_run_ids=connection.execute(unfinished.order_by(runs.c.created_at, runs.c.id)).scalars().all(),
        created_at=row["created_at"] if row is not None else None,
        updated_at=row["updated_at"] if row is not None else None,
    )
    return found if found.items or found.runs else None


def delete_session(connection: sa.Connection, session_id: str) -> None:
    """Remove a session with its items; the runs of it stay. May be repeated.

    While a run may go on, a cancelled or failed one too, the row stays with no items: it holds the position up to
    which such a run reads.
    """
    clear_session(connection, session_id)
    may_go_on = sa.exists().where(runs.c.session_id == session_id, runs.c.status != "succeeded")
    connection.execute(sa.delete(sessions).where(sessions.c.id == session_id, ~may_go_on))


def lock_session(connection: sa.Connection, session_id: str) -> None:
    """Let no run add items to the session before the transaction ends."""
    connection.execute(sa.select(sessions.c.id).where(sessions.c.id == session_id).with_for_update())


def _take_positions(connection: sa.Connection, session_id: str, count: int) -> int:
    """Lock the session and return the first of `count` fresh positions."""
    values = {"id": session_id, "last_position": count, "count": count}
    return connection.execute(_RAISE, values).scalar_one() - count + 1


def _touch(connection: sa.Connection, session_id: str) -> bool:
    """Lock the session and note the change; return whether it exists."""
    change = sa.update(sessions).where(sessions.c.id == session_id).values(updated_at=sa.func.now())
    return connection.execute(change).rowcount == 1
