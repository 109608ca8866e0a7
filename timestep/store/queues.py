"""Queued runs: `runs` with a queue, and `session_queue`, by which the runs of a session go one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import sqlalchemy as sa

from timestep.ids import SEGMENT_QUEUE
from timestep.records import QueuedRun
from timestep.store.connection import one_statement
from timestep.store.runs import REQUEST_COLUMNS, request_values
from timestep.store.tables import insert_rows, row_values, runs, session_queue
from timestep.words import read_reason

_OF_QUEUED = tuple(
    field.name
    for field in dataclasses.fields(QueuedRun)
    if field.name not in ("request", "input_digest", "one_at_a_time")
)
_COLUMNS = (*REQUEST_COLUMNS, *_OF_QUEUED, "session_place", "status")
_PLACE = "case when queued.session_place is not null then nextval('timestep.session_places') end"

# Locks of sessions are taken in one order by all: two that queue runs of the same sessions never wait for each other.
_QUEUE = sa.text(f"""
with stored as (
  {insert_rows(runs, _COLUMNS, "queued", same={"status": "'queued'"}, made={"session_place": _PLACE})}
  returning id, session_id, session_place
)
select id, timestep.enqueue_run(id) from stored order by hashtextextended(session_id, 0), session_place""")

_HOLDERS = sa.text("""
select r.queue, r.deduplication_id, r.id from timestep.runs r
join unnest(cast(:queues as text[]), cast(:ids as text[])) as asked (queue, id)
  on r.queue = asked.queue and r.deduplication_id = asked.id
where r.deduplication_id is not null and r.status in ('queued', 'running', 'interrupted')""")

_DIGESTS = sa.text("select id, input_digest from timestep.runs where id = any(:ids)")

_ENDED = sa.text("""
select id as run_id, status, reason, output, error from timestep.runs
where id = any(:ids) and status not in ('queued', 'running') order by finished_at, id""").columns(
    output=runs.c.output.type, error=runs.c.error.type
)

_COUNTS = sa.text(f"""
select case when r.segment = 1 then r.queue else '{SEGMENT_QUEUE}' end as name,
  count(*) filter (where r.status = 'queued') as waiting,
  count(*) filter (where q.is_waiting) as waiting_for_session,
  count(*) filter (where r.status = 'running') as running,
  min(coalesce(r.segment_started_at, r.created_at)) filter (where r.status = 'queued') as oldest_waiting_at
from timestep.runs r left join timestep.session_queue q on q.run_id = r.id
where r.status in ('queued', 'running') and (r.segment > 1 or r.queue is not null)
group by 1""")


@dataclass(frozen=True, kw_only=True)
class SessionPlace:
    """A run's place among those that have their session or wait for it; `holder` is the run that has it."""

    is_waiting: bool
    holder: str | None


@one_statement
def insert_queued(connection: sa.Connection, queued: Sequence[QueuedRun]) -> set[str]:
    """Store runs and enqueue their first segments, all or none; return the ids that were not there.

    A run whose id is known, or whose deduplication id another one has, stays out. One that runs one at a time in its
    session is enqueued when it is its turn. The order of `queued` is that of the sessions.
    """
    rows = [
        request_values(each.request, each.input_digest)
        | {name: getattr(each, name) for name in _OF_QUEUED}
        | {"session_place": 0 if each.one_at_a_time == "session" and each.request.session_id is not None else None}
        for each in queued
    ]
    given = [name for name in _COLUMNS if name != "status"]
    return {row[0] for row in connection.execute(_QUEUE, row_values(runs, given, "queued", rows))}


@one_statement
def digests_of(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """Return the digests of those of these runs that are there, by their ids."""
    found = connection.execute(_DIGESTS, {"ids": list(run_ids)})
    return {row.id: row.input_digest for row in found}


@one_statement
def holders_of(connection: sa.Connection, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the runs that have these deduplication ids, given and returned as queue and id."""
    values = {"queues": [queue for queue, _ in wanted], "ids": [each for _, each in wanted]}
    return {(queue, given): run_id for queue, given, run_id in connection.execute(_HOLDERS, values)}


@one_statement
def ended_among(connection: sa.Connection, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return those of these runs that have ended or wait for a person: id, status, reason, output and error."""
    found = connection.execute(_ENDED, {"ids": list(run_ids)}).mappings()
    return [{**row, "reason": read_reason(row["reason"], row["error"])} for row in found]


@one_statement
def count_by_queue(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """Return by the name of a queue the counts of `Queue`; queues without a run that waits or runs are absent."""
    counts: dict[str, dict[str, Any]] = {}
    for row in connection.execute(_COUNTS).mappings():
        count = dict(row)
        if (oldest := count["oldest_waiting_at"]) is not None:
            count["oldest_waiting_at"] = oldest.astimezone(UTC)
        counts[count.pop("name")] = count
    return counts


@one_statement
def find_place(connection: sa.Connection, run_id: str) -> SessionPlace | None:
    """Return a run's place in its session; None when it neither has it nor waits for it."""
    holder = session_queue.alias("holder")
    of_session = sa.and_(holder.c.session_id == session_queue.c.session_id, sa.not_(holder.c.is_waiting))
    query = sa.select(session_queue.c.is_waiting, holder.c.run_id.label("holder")).outerjoin_from(
        session_queue, holder, of_session
    )
    row = connection.execute(query.where(session_queue.c.run_id == run_id)).mappings().first()
    return SessionPlace(**row) if row is not None else None


@one_statement
def mend_sessions(connection: sa.Connection) -> None:
    """Go on with the sessions that nobody has although runs wait for them. May be repeated."""
    connection.execute(sa.text("select timestep.mend_sessions()"))
