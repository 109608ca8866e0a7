"""Tokens and cost of finished model calls, summed up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from timestep.client.connector import Connector
from timestep.errors import InvalidInputError
from timestep.records import USAGE_KEYS, UsageKey, UsageTotal
from timestep.store.usage import sum_usage

_SUMMED = ("calls", "requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "unpriced_calls")


def list_usage(connector: Connector, *, by: UsageKey = "model", since: datetime | None = None) -> list[UsageTotal]:
    """Return tokens and cost of the model calls that finished at `since` or later, by what they have in common.

    Raises:
        InvalidInputError: `by` is another word, or `since` has no time zone.
    """
    if by not in USAGE_KEYS:
        raise InvalidInputError(f"Usage is listed by one of {', '.join(USAGE_KEYS)}, not by {by!r}.")
    if since is not None and since.tzinfo is None:
        raise InvalidInputError(f"The time {since.isoformat()!r} has no time zone.")
    return connector.database.run_sync(sum_usage, by=by, since=since)


def total_of(found: Sequence[UsageTotal]) -> UsageTotal:
    """Return the sum of all."""
    costs = [each.cost_micro_usd for each in found if each.cost_micro_usd is not None]
    sums: dict[str, Any] = {name: sum(getattr(each, name) for each in found) for name in _SUMMED}
    prices = {(price.source, str(price.priced_at)): price for each in found for price in each.prices}
    return UsageTotal(
        key=None,
        cost_micro_usd=sum(costs) if costs else None,
        prices=[prices[key] for key in sorted(prices)],
        **sums,
    )
