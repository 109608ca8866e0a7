"""What every executor asks each second, in one statement: one more would be one a second for each idle executor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from timestep.store.connection import one_statement
from timestep.words import FOR_EXECUTORS, one_of

MOST_WAITING = 1000


@dataclass(frozen=True, kw_only=True)
class ParkedRun:
    """A run that waits for an executor that has its agent, with the code that `code` names.

    `model` is the name of the model that it has instead of those of its agents.
    """

    run_id: str
    segment: int
    agent: str
    code: Sequence[str]
    model: str | None


@dataclass(frozen=True, kw_only=True)
class Due:
    """What there is to do.

    `overdue` are running runs that have reached their time limit; `waiting` are those that no executor could take,
    because it did not have their agent or code of theirs; `pauses` are the rate limits that are paused, with the
    seconds left.
    """

    overdue: Sequence[str] = ()
    waiting: Sequence[ParkedRun] = ()
    pauses: dict[str, float] = field(default_factory=dict[str, float])


_DUE = sa.text(f"""
select 'overdue' as kind, id, 0 as segment, 0::float8 as seconds, null as agent, null as code, null as model
from timestep.runs where status = 'running' and deadline_at <= now()
union all
select 'paused', key, 0, extract(epoch from paused_until - clock_timestamp())::float8, null, null, null
from timestep.rate_limits where paused_until > clock_timestamp()
union all
select 'waiting', id, segment, 0, agent, code, model from (
  select *, row_number() over (partition by agent, code, model order by session_place, created_at) as place from (
    select id, segment, agent, options ->> 'code' as code, session_place, created_at,
      coalesce(options ->> 'model', options -> 'run_config' ->> 'model') as model
    from timestep.runs
    where status = 'interrupted' and {one_of("reason", FOR_EXECUTORS)} and agent = any(:agents)) as parked
  order by session_place, created_at) as waiting
where place <= :limit
union all
select 'started', timestep.advance_session(session_id)::text, 0, 0, null, null, null from (
  select session_id from timestep.session_queue q
  where is_waiting and start_after <= now() and not exists (
    select 1 from timestep.session_queue h where h.session_id = q.session_id and not h.is_waiting)
  group by session_id order by hashtextextended(session_id, 0)) as due""")


@one_statement
def find_due(connection: sa.Connection, agents: Sequence[str] = (), *, limit: int = MOST_WAITING) -> Due:
    """Return what there is to do for an executor that knows these agents.

    Runs whose delay is over are started, if nobody has their session. Of the parked runs that need the same code there
    are at most `limit`.
    """
    rows = connection.execute(_DUE, {"agents": list(agents), "limit": limit}).fetchall()
    return Due(
        overdue=[row.id for row in rows if row.kind == "overdue"],
        waiting=[_parked(row) for row in rows if row.kind == "waiting"],
        pauses={row.id: row.seconds for row in rows if row.kind == "paused"},
    )


def _parked(row: sa.Row[Any]) -> ParkedRun:
    code = json.loads(row.code) if row.code is not None else ()
    return ParkedRun(run_id=row.id, segment=row.segment, agent=row.agent, code=code, model=row.model)
