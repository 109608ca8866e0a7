"""Rate limits that all executors share: `rate_limits`, one row a limit, on the clock of Postgres alone.

A row says when what was taken of its limit is made up for at the steady rate. A tenth of a limit may be taken at
once, and the steady rate is what is left of it: so no 60 seconds hold more than the limit, and at least nine tenths of
it can be used. A call of more tokens than that tenth waits until nothing is owed, and is made up for afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from timestep.records import RateLimit
from timestep.store.connection import one_statement

MINUTE_SECONDS = 60.0
BURST = 10
"""The part of a limit that may be taken at once: one in so many."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a call takes of the limit `key`, in seconds of its steady rate; None where there is no such limit.

    `lead_seconds` is how far what was taken may be ahead of the steady rate for the call to begin.
    """

    key: str
    request_seconds: float | None = None
    request_lead_seconds: float | None = None
    token_seconds: float | None = None
    token_lead_seconds: float | None = None

    @classmethod
    def of(cls, key: str, limit: RateLimit, *, tokens: int = 0) -> Share:
        """Return the share of one request that takes so many tokens."""
        values: dict[str, float] = {}
        if (requests := limit.requests_per_minute) is not None:
            burst = max(1, requests // BURST)
            seconds = MINUTE_SECONDS / (requests - burst + 1)
            values = {"request_seconds": seconds, "request_lead_seconds": (burst - 1) * seconds}
        if limit.tokens_per_minute is not None:
            burst_tokens = limit.tokens_per_minute / BURST
            values["token_seconds"] = seconds_of_tokens(limit, tokens) or 0.0
            values["token_lead_seconds"] = seconds_of_tokens(limit, max(0.0, burst_tokens - tokens)) or 0.0
        return cls(key=key, **values)


def seconds_of_tokens(limit: RateLimit, tokens: float) -> float | None:
    """Return how long the steady rate takes to make up for so many tokens; None without a limit of tokens."""
    if limit.tokens_per_minute is None:
        return None
    return tokens * MINUTE_SECONDS / (limit.tokens_per_minute * (1 - 1 / BURST))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a call may begin now; else how long it waits at least, and for which limit the longest."""

    is_taken: bool
    seconds: float
    key: str


_ARRAYS = {name: "text" if name == "key" else "float8" for name in Share.__dataclass_fields__}
_ASKED = ", ".join(f"cast(:{name} as {kind}[])" for name, kind in _ARRAYS.items())

_TAKE = sa.text(f"""
with asked as (
  select * from unnest({_ASKED}) as asked ({", ".join(_ARRAYS)})
), held as materialized (
  select * from timestep.rate_limits where key = any(cast(:key as text[])) order by key for update
), moment as materialized (
  select clock_timestamp() as now, count(*) as rows from held
), due as materialized (
  select held.key,
    greatest(held.requests_free_at, now) + make_interval(secs => request_seconds) as requests_free_at,
    greatest(held.tokens_free_at, now) + make_interval(secs => token_seconds) as tokens_free_at,
    greatest(held.paused_until, now,
      greatest(held.requests_free_at, now) - make_interval(secs => request_lead_seconds),
      greatest(held.tokens_free_at, now) - make_interval(secs => token_lead_seconds)) as ready_at
  from held join asked on asked.key = held.key cross join moment
), verdict as materialized (
  select now, rows, max(ready_at) as ready_at, (array_agg(due.key order by ready_at desc))[1] as key,
    cast(:may_take as boolean) and rows = cardinality(cast(:key as text[])) and max(ready_at) <= now as is_taken
  from moment left join due on true group by now, rows
), taken as (
  update timestep.rate_limits as l set
    requests_free_at = coalesce(due.requests_free_at, l.requests_free_at),
    tokens_free_at = coalesce(due.tokens_free_at, l.tokens_free_at)
  from due, verdict where l.key = due.key and is_taken
), noted as (
  update timestep.runs as r set
    waits_for = case when not is_taken then verdict.key end,
    waits_since = case when not is_taken then coalesce(r.waits_since, now) end
  from verdict where r.id = :run_id and r.status = 'running' and case
    when is_taken then cast(:is_last as boolean) and r.waits_for is not null
    else r.waits_for is distinct from verdict.key end
)
select is_taken, rows, cast(greatest(extract(epoch from ready_at - now), 0) as float8) as seconds, key from verdict
""")
"""The rows are locked in the order of their keys, then the clock is read: whoever comes later sees what was taken."""

_ADD = sa.text("insert into timestep.rate_limits (key) select unnest(cast(:key as text[])) on conflict do nothing")

_SETTLE = sa.text("""
with asked as (
  select * from unnest(cast(:key as text[]), cast(:seconds as float8[])) as asked (key, seconds)
), held as materialized (
  select key from timestep.rate_limits where key = any(cast(:key as text[])) order by key for update
)
update timestep.rate_limits as l set tokens_free_at = make_interval(secs => seconds) + case
  when seconds > 0 then greatest(l.tokens_free_at, clock_timestamp()) else l.tokens_free_at end
from asked join held on held.key = asked.key where l.key = asked.key
""")

_PAUSE = sa.text("""
insert into timestep.rate_limits as l (key, paused_until)
values (:key, clock_timestamp() + make_interval(secs => :seconds))
on conflict (key) do update set paused_until = greatest(l.paused_until, excluded.paused_until)
""")


@one_statement
def take(
    connection: sa.Connection, shares: Sequence[Share], *, run_id: str, may_take: bool = True, is_last: bool = True
) -> Verdict:
    """Take the shares of a call, all or none, and note at the run whether it waits.

    A repeat takes a second time, which leaves less for the others and never more.

    Args:
        may_take: False for a call that stands behind others: nothing is taken.
        is_last: No other call of the run waits, so that a run which goes on waits no more.
    """
    values = {name: [getattr(share, name) for share in shares] for name in _ARRAYS}
    values |= {"run_id": run_id, "may_take": may_take, "is_last": is_last}
    row = connection.execute(_TAKE, values).one()
    if row.rows < len(shares):  # the first look at a limit
        connection.execute(_ADD, {"key": values["key"]})
        row = connection.execute(_TAKE, values).one()
    return Verdict(is_taken=row.is_taken, seconds=row.seconds or 0.0, key=row.key or shares[0].key)


@one_statement
def settle_tokens(connection: sa.Connection, seconds: dict[str, float]) -> None:
    """Take more tokens of each limit, or give some back; in seconds of its steady rate. A repeat does so again."""
    connection.execute(_SETTLE, {"key": list(seconds), "seconds": [float(value) for value in seconds.values()]})


@one_statement
def pause(connection: sa.Connection, key: str, *, seconds: float) -> None:
    """Let no call of a limit begin for a while. May be repeated; a pause that is longer stays."""
    connection.execute(_PAUSE, {"key": key, "seconds": seconds})
