"""What every executor asks each second, in one statement: one more would be one a second for each idle executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from timestep.store.connection import one_statement
from timestep.words import AGENT_NOT_REGISTERED

MOST_WAITING = 1000


@dataclass(frozen=True, kw_only=True)
class Due:
    """What there is to do.

    `overdue` are running runs that have reached their time limit; `waiting` are id and segment of runs that no executor
    could take because it did not know their agent; `pauses` are the rate limits that are paused, with the seconds left.
    """

    overdue: Sequence[str] = ()
    waiting: Sequence[tuple[str, int]] = ()
    pauses: dict[str, float] = field(default_factory=dict[str, float])


_DUE = sa.text(f"""
select 'overdue' as kind, id, 0 as segment, 0::float8 as seconds from timestep.runs
where status = 'running' and deadline_at <= now()
union all
select 'paused', key, 0, extract(epoch from paused_until - clock_timestamp())::float8 from timestep.rate_limits
where paused_until > clock_timestamp()
union all
select 'waiting', id, segment, 0 from (
  select id, segment from timestep.runs
  where status = 'interrupted' and reason = '{AGENT_NOT_REGISTERED}' and agent = any(:agents)
  order by session_place, created_at limit :limit) as waiting
union all
select 'started', timestep.advance_session(session_id)::text, 0, 0 from (
  select session_id from timestep.session_queue q
  where is_waiting and start_after <= now() and not exists (
    select 1 from timestep.session_queue h where h.session_id = q.session_id and not h.is_waiting)
  group by session_id order by hashtextextended(session_id, 0)) as due""")


@one_statement
def find_due(connection: sa.Connection, agents: Sequence[str] = (), *, limit: int = MOST_WAITING) -> Due:
    """Return what there is to do for an executor that knows these agents.

    Runs whose delay is over are started, if nobody has their session.
    """
    rows = connection.execute(_DUE, {"agents": list(agents), "limit": limit}).fetchall()
    return Due(
        overdue=[row.id for row in rows if row.kind == "overdue"],
        waiting=[(row.id, row.segment) for row in rows if row.kind == "waiting"],
        pauses={row.id: row.seconds for row in rows if row.kind == "paused"},
    )
