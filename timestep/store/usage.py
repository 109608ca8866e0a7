"""Tokens and cost of model calls of closed segments: `usage`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, assert_never

import sqlalchemy as sa

from timestep.records import PriceData, UsageKey, UsageTotal
from timestep.store.tables import row_values, runs, usage


@dataclass(frozen=True, kw_only=True)
class ModelCallUsage:
    """Tokens and cost of one finished model call.

    `cost_micro_usd` is None when the price is unknown; else `price_source` and `priced_at` say which price data it is
    from, as in `timestep.pricing`.
    """

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
    price_source: str | None = None
    priced_at: date | None = None


COLUMNS = tuple(ModelCallUsage.__dataclass_fields__)


def usage_values(calls: Sequence[ModelCallUsage]) -> dict[str, str]:
    """Return the calls as parameters of `insert_rows` with the prefix `used`."""
    return row_values(usage, COLUMNS, "used", [vars(call) for call in calls])


def list_usage(connection: sa.Connection, run_id: str) -> list[ModelCallUsage]:
    """Return the run's model calls in the order in which they finished."""
    query = sa.select(*(usage.c[name] for name in COLUMNS)).where(usage.c.run_id == run_id)
    rows = connection.execute(query.order_by(usage.c.segment, usage.c.created_at, usage.c.step)).mappings()
    return [ModelCallUsage(**row) for row in rows]


def sum_usage(connection: sa.Connection, *, by: UsageKey, since: datetime | None = None) -> list[UsageTotal]:
    """Return the usage of model calls that finished at `since` or later, by what they have in common.

    Days come in their order, all else with the highest cost first, then the most tokens. Of models the provider is
    told apart.
    """
    key, provider = _key_column(by).label("key"), usage.c.provider if by == "model" else sa.null()
    cost, tokens = _total(usage.c.cost_micro_usd), _total(usage.c.input_tokens + usage.c.output_tokens)
    counted = ("requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    query = sa.select(
        key,
        provider.label("provider"),
        sa.func.count().label("calls"),
        *(_total(usage.c[name]).label(name) for name in counted),
        cost.label("cost_micro_usd"),
        sa.func.count().filter(usage.c.cost_micro_usd.is_(None)).label("unpriced_calls"),
        _PRICES.label("prices"),
    ).group_by(key, *([usage.c.provider] if by == "model" else []))
    if by == "session":
        query = query.select_from(usage.outerjoin(runs, runs.c.id == usage.c.run_id))
    if since is not None:
        query = query.where(usage.c.created_at >= since)
    query = query.order_by(key) if by == "day" else query.order_by(cost.desc().nulls_last(), tokens.desc(), key)
    rows: list[dict[str, Any]] = [dict(row) for row in connection.execute(query).mappings()]
    return [UsageTotal(prices=_prices(row.pop("prices")), **row) for row in rows]


_PRICES = sa.func.json_agg(sa.distinct(sa.func.jsonb_build_array(usage.c.price_source, usage.c.priced_at))).filter(
    usage.c.price_source.is_not(None)
)


def _prices(found: list[tuple[str, str | None]] | None) -> list[PriceData]:
    return [PriceData(source=source, priced_at=date.fromisoformat(day) if day else None)
            for source, day in found or ()]  # fmt: skip


def _total(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.sum(column), sa.BigInteger)  # the sum alone is a decimal


def _key_column(by: UsageKey) -> sa.ColumnElement[Any]:
    if by == "model":
        return usage.c.model
    if by == "agent":
        return usage.c.agent
    if by == "run":
        return usage.c.run_id
    if by == "session":
        return runs.c.session_id
    if by == "day":
        return sa.func.to_char(sa.func.timezone("UTC", usage.c.created_at), "YYYY-MM-DD")
    assert_never(by)
