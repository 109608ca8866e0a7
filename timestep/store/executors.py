"""Processes that execute segments: `executors`. The session lock tells whether one lives, not the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert

from timestep.store.connection import one_statement
from timestep.store.tables import executors, runs


@dataclass(frozen=True, kw_only=True)
class ExecutorRow:
    """One executor as stored; `started_at` is the database's time and None before it is stored.

    `queues` are those that it takes runs from, None for all of them.
    """

    id: str
    application_version: str
    host: str
    pid: int
    process_space: str
    agents: Sequence[str]
    queues: Sequence[str] | None = None
    started_at: datetime | None = None
    free_since: datetime | None = None


LOCK_PREFIX = "timestep-executor:"
"""An executor holds the session lock `hashtextextended(LOCK_PREFIX || id, 0)` while it lives."""

_COLUMNS = tuple(executors.c[name] for name in ExecutorRow.__dataclass_fields__)


def insert_executor(connection: sa.Connection, executor: ExecutorRow) -> None:
    """Store the executor, or bring its row up to date: it lives. May be repeated."""
    row = {
        "application_version": executor.application_version,
        "host": executor.host,
        "pid": executor.pid,
        "process_space": executor.process_space,
        "agents": list(executor.agents),
        "queues": None if executor.queues is None else list(executor.queues),
        "free_since": None,
    }
    connection.execute(
        insert(executors).values(id=executor.id, **row).on_conflict_do_update(index_elements=[executors.c.id], set_=row)
    )


def insert_lost_executors(connection: sa.Connection, executors_with_work: Sequence[tuple[str, str]]) -> None:
    """Store executors that have work and no row, by id and version, so that they are taken over. May be repeated.

    One that was fenced may have taken work after its row was removed.
    """
    if not executors_with_work:
        return
    rows = [
        {
            "id": executor_id,
            "application_version": version,
            "host": "unknown",
            "pid": 0,
            "process_space": "unknown",
            "agents": [],
            "queues": [],
            "free_since": sa.func.to_timestamp(0),
        }
        for executor_id, version in dict(executors_with_work).items()
    ]
    connection.execute(insert(executors).values(rows).on_conflict_do_nothing())


def list_executors(connection: sa.Connection) -> list[tuple[ExecutorRow, bool]]:
    """Return every executor that has a row, and whether it holds its lock now; the oldest first."""
    held = sa.text(
        "select (l.classid::bigint << 32) | l.objid::bigint from pg_locks l "
        "where l.locktype = 'advisory' and l.granted and l.objsubid = 1 "
        "and l.database = (select oid from pg_database where datname = current_database())"
    )
    keys = set(connection.execute(held).scalars())
    key = sa.func.hashtextextended(sa.literal(LOCK_PREFIX) + executors.c.id, 0)
    query = sa.select(key, *_COLUMNS).order_by(executors.c.started_at, executors.c.id)
    names = ExecutorRow.__dataclass_fields__
    return [
        (ExecutorRow(**dict(zip(names, row, strict=True))), held_key in keys)
        for held_key, *row in connection.execute(query)
    ]


def list_live_executors(connection: sa.Connection) -> list[ExecutorRow]:
    """Return the executors that hold their lock now, the oldest first."""
    return [executor for executor, is_alive in list_executors(connection) if is_alive]


@one_statement
def runs_on_executors(connection: sa.Connection, *, limit: int) -> dict[str, tuple[int, list[str]]]:
    """Return by executor how many runs are running on it, and the ids of those that began first, at most `limit`."""
    first = sa.func.array_agg(postgresql.aggregate_order_by(runs.c.id, runs.c.segment_started_at, runs.c.id))
    query = sa.select(runs.c.executor_id, sa.func.count(), first).where(runs.c.status == "running")
    rows = connection.execute(query.group_by(runs.c.executor_id))
    return {executor_id: (count, list(ids[:limit])) for executor_id, count, ids in rows}
