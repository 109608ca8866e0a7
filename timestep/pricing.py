"""What a model call costs, from the price data that the package `genai-prices` ships. Nothing is fetched.

A price that is not known is None, never zero. A model that a server on this machine serves costs nothing.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from genai_prices.types import Provider

log = logging.getLogger("timestep")

LOCAL = "local"
"""Source of the price of a model on this machine."""

_CHECKED = re.compile(r"(?:checked|verified|as of)(?: on)? (\d{4}-\d{2}-\d{2})", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Price:
    """The cost of one model call.

    `source` names the price data and their version, such as `genai-prices 0.2.3`, or is `local`. `priced_at` is the
    newest day on which these data say that they were checked; None when they do not say, and of a local model.
    """

    cost_micro_usd: int
    source: str
    priced_at: date | None


def price_of(
    model: str | None,
    *,
    input_tokens: int,
    output_tokens: int,
    at: datetime,
    cached_tokens: int = 0,
    cache_write_tokens: int = 0,
    provider: str | None = None,
    base_url: str | None = None,
) -> Price | None:
    """Return the price of a model call that ended at `at`, or None when it is not known.

    The provider is the one whose API is at `base_url`; without a URL it is `provider`, a prefix as in
    `openai/gpt-4.1`, or the maker that the model's name tells. Cached and written tokens are part of the input
    tokens. The price is the standard one: no batch, no service tier, no discount.

    A call whose tokens were not told has no price. The first call loads the price data: 0.06 s, or 0.3 s without the
    Agents SDK.
    """
    if base_url is not None and is_on_this_machine(base_url):
        return Price(cost_micro_usd=0, source=LOCAL, priced_at=None)
    if model is None or not input_tokens + output_tokens:
        return None
    if base_url is None and provider is None and "/" in model:
        provider, model = model.split("/", 1)
    from genai_prices import Usage, __version__, calc_price

    try:
        usage = Usage(
            input_tokens=input_tokens,
            cache_read_tokens=cached_tokens or None,
            cache_write_tokens=cache_write_tokens or None,
            output_tokens=output_tokens,
        )
        if base_url is not None:
            found = calc_price(usage, model, provider_api_url=base_url, genai_request_timestamp=at)
        else:
            found = calc_price(usage, model, provider_id=provider, genai_request_timestamp=at)
    except LookupError:
        return None
    except ValueError as error:
        log.warning("The call of %s has no price: %s", model, error)
        return None
    updated = found.auto_update_timestamp
    return Price(
        cost_micro_usd=_micro_usd(found.total_price),
        source=f"genai-prices {__version__}",
        priced_at=updated.date() if updated is not None else _day_of_the_data(),
    )


def is_on_this_machine(url: str) -> bool:
    """Return whether a URL names this machine by its loopback address or as `localhost`."""
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _micro_usd(price_usd: Decimal) -> int:
    return int((price_usd * 1_000_000).to_integral_value(ROUND_HALF_UP))


@functools.cache
def _day_of_the_data() -> date | None:
    """Return the newest day on which the comments of the data say that a price was checked; releases carry no date."""
    from genai_prices.data import providers

    days = [day for comment in _comments(providers) for day in _CHECKED.findall(comment)]
    return date.fromisoformat(max(days)) if days else None


def _comments(providers: Sequence[Provider]) -> Iterator[str]:
    for provider in providers:
        yield provider.price_comments or ""
        for model in provider.models:
            yield model.price_comments or ""
