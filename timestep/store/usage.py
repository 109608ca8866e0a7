"""Tokens and cost of model calls of closed segments: `usage`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from timestep.store.tables import insert_rows, row_values, usage


@dataclass(frozen=True, kw_only=True)
class ModelCallUsage:
    """Tokens and cost of one finished model call; `cost_micro_usd` is None when the price is unknown."""

    run_id: str
    step: str
    segment: int
    agent: str
    model: str | None
    provider: str | None
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    created_at: datetime
    cost_micro_usd: int | None = None


COLUMNS = tuple(ModelCallUsage.__dataclass_fields__)
_INSERT = sa.text(insert_rows(usage, COLUMNS, "used"))


def insert_usage(connection: sa.Connection, calls: Sequence[ModelCallUsage]) -> None:
    """Store the calls; those that are there already stay as they are. May be repeated."""
    if calls:
        connection.execute(_INSERT, usage_values(calls))


def usage_values(calls: Sequence[ModelCallUsage]) -> dict[str, str]:
    """Return the calls as parameters of `insert_rows` with the prefix `used`."""
    return row_values(usage, COLUMNS, "used", [vars(call) for call in calls])


def list_usage(connection: sa.Connection, run_id: str) -> list[ModelCallUsage]:
    """Return the run's model calls in the order in which they finished."""
    query = sa.select(*(usage.c[name] for name in COLUMNS)).where(usage.c.run_id == run_id)
    rows = connection.execute(query.order_by(usage.c.segment, usage.c.created_at, usage.c.step)).mappings()
    return [ModelCallUsage(**row) for row in rows]
