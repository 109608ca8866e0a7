"""`timestep usage`: tokens and cost of finished model calls, summed up."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from timestep.cli.output import emit_json, emit_table, format_time, json_option, note
from timestep.records import USAGE_KEYS, UsageKey, UsageTotal

_SPAN = re.compile(r"(\d+)(min|h|d|w)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _moment(context: click.Context, parameter: click.Parameter, value: str) -> datetime:
    """Return the moment of `--since`: a span up to now, such as `7d`, or a day or time, in UTC when it says no zone."""
    text, now = value.strip(), datetime.now(UTC)
    try:
        if span := _SPAN.fullmatch(text):
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        is_past = moment <= now
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time: write a span such as 30min, 24h, 7d or 2w, or a day such as 2026-11-01.",
            context, param=parameter,
        ) from None  # fmt: skip
    if not is_past:
        raise click.BadParameter(f"{text!r} is in the future.", context, param=parameter)
    return moment


@click.command()
@click.option(
    "--by", type=click.Choice(USAGE_KEYS), default="model", show_default=True, help="What the calls are summed up by."
)
@click.option(
    "--since",
    callback=_moment,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="30min, 24h, 7d, 2w, or a day in UTC.",
)
@json_option
def command(by: UsageKey, since: datetime, as_json: bool) -> None:
    """Sum up the tokens and the cost of model calls that finished since a time.

    Cost is in US dollars, at the standard price on the day of the call. A call whose price is not known is counted
    apart. The calls of a segment that is still running are not there yet. --json also says in `prices` which price
    data the cost is from, and on which day these were checked.

    \b
    Example:
      timestep usage --by agent --since 24h
    """
    from timestep.cli.connect import connect
    from timestep.client.usage import list_usage, total_of

    with connect() as connector:
        found = list_usage(connector, by=by, since=since)
    total = total_of(found)
    if as_json:
        emit_json({"by": by, "since": since, "groups": found, "total": total})
        return
    if not found:
        note(f"No model call has finished since {format_time(since, 'iso')}.")
        return
    provider = ["PROVIDER"] if by == "model" else []
    emit_table(
        [by.upper(), *provider, "CALLS", "INPUT", "CACHED", "OUTPUT", "REASONING", "COST USD"],
        [_row(each, each.key or f"no {by}", bool(provider)) for each in found]
        + ([_row(total, "total", bool(provider))] if len(found) > 1 else []),
    )
    if total.unpriced_calls:
        note(f"{_calls(total.unpriced_calls)} without a price; the cost is that of the others.")


def _row(each: UsageTotal, key: str, has_provider: bool) -> list[object]:
    numbers = (each.calls, each.input_tokens, each.cached_tokens, each.output_tokens, each.reasoning_tokens)
    return [key, *([each.provider] if has_provider else []), *(f"{number:,}" for number in numbers), _cost(each)]


def _cost(each: UsageTotal) -> str:
    if each.cost_micro_usd is None:
        return "unknown"
    dollars, millionths = divmod(each.cost_micro_usd, 1_000_000)
    cost = f"{dollars:,}.{millionths:06}"
    return f"{cost} + {_calls(each.unpriced_calls)} without a price" if each.unpriced_calls else cost


def _calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"
