"""What commands print: data on stdout, everything else on stderr.

Tables for people, JSON for programs; keys of the JSON are the field names of the records. Without a terminal
nothing is cut and nothing is coloured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import PurePath
from typing import Any, Literal, TypeVar

import click

from timestep.client.asked import clean

NARROWEST_COLUMN = 8
"""Characters below which no column is cut."""

TimeStyle = Literal["relative", "iso"]
F = TypeVar("F", bound=Callable[..., Any])

_UNITS = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (float("inf"), 86400, "d"))


def json_option(function: F) -> F:
    """Give a reading command the option `--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def context_option(function: F) -> F:
    """Give a command that starts runs the option `--context`, as `run_context`: any JSON, None when absent."""
    return click.option(
        "--context", "run_context", metavar="JSON", callback=_read_json, help="Run context, as JSON of its type."
    )(function)


def time_option(function: F) -> F:
    """Give a command the option `--time`, as the argument `time_style` of `format_time`."""
    return click.option(
        "--time",
        "time_style",
        type=click.Choice(["relative", "iso"]),
        default="relative",
        show_default=True,
        help="How times are printed.",
    )(function)


def emit(text: str = "") -> None:
    """Write a line of data to stdout."""
    click.echo(text)


def emit_json(value: object) -> None:
    """Write `value` to stdout as indented JSON. Dataclasses, times and paths are allowed in it."""
    click.echo(_json_text(value, indent=2))


def emit_json_line(value: object) -> None:
    """Write `value` to stdout as one line of JSON: an element of a stream."""
    click.echo(_json_text(value, separators=(",", ":")))


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows to stdout, aligned below `columns`; a terminal gets them fitted to its width.

    The first column is never cut. None is an empty cell. Line breaks and control characters are made visible;
    spaces at the start of a cell stay, they draw a tree.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    if sys.stdout.isatty():
        widths = _fitted(widths, shutil.get_terminal_size().columns)
    for row in [list(columns), *cells]:
        cut = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cut, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())


def note(text: str = "") -> None:
    """Write a line for people to stderr, unless `--quiet` is given."""
    if not is_quiet():
        click.echo(text, err=True)


def is_quiet() -> bool:
    """Return whether `--quiet` is given."""
    return bool(_meta().get("timestep.quiet"))


def shows_progress() -> bool:
    """Return whether a spinner or a live line may be drawn on stderr."""
    return sys.stderr.isatty() and not is_quiet() and not os.environ.get("TIMESTEP_NO_PROGRESS")


def has_colours(*, is_error: bool = False) -> bool:
    """Return whether stdout, or stderr with `is_error`, takes colours."""
    stream = sys.stderr if is_error else sys.stdout
    is_refused = _meta().get("timestep.no_color") or os.environ.get("NO_COLOR")
    return stream.isatty() and not is_refused and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str, *, is_error: bool = False) -> str:
    """Return `text` in a colour of click where colours are taken, else unchanged."""
    return click.style(text, fg=colour) if has_colours(is_error=is_error) else text


def format_time(value: datetime | None, time_style: TimeStyle = "relative", *, now: datetime | None = None) -> str:
    """Return an aware time as `3 min ago`, or as ISO 8601 in UTC."""
    if value is None:
        return ""
    if time_style == "iso":
        return _iso(value)
    seconds = ((now or datetime.now(UTC)) - value).total_seconds()
    span = format_duration(abs(seconds))
    return f"{span} ago" if seconds >= 0 else f"in {span}"


def format_duration(seconds: float) -> str:
    """Return seconds in their largest whole unit, such as `3 min`."""
    limit_unit = next((size, unit) for limit, size, unit in _UNITS if seconds < limit)
    return f"{int(seconds // limit_unit[0])} {limit_unit[1]}"


def _meta() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return context.meta if context else {}


def _json_text(value: object, **layout: Any) -> str:
    is_unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=not is_unicode, default=_jsonable, **layout)
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate becomes its JSON escape


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _jsonable(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return _iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return " " * (len(text) - len(text.lstrip(" "))) + clean(text)


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _fitted(widths: list[int], terminal_width: int) -> list[int]:
    """Return `widths`, the widest columns but the first narrowed until they fit or get no narrower."""
    fitted = list(widths)
    gaps = 2 * (len(fitted) - 1)
    while sum(fitted) + gaps > terminal_width:
        widest = max(range(1, len(fitted)), key=lambda position: fitted[position], default=0)
        if widest == 0 or fitted[widest] <= NARROWEST_COLUMN:
            break
        fitted[widest] -= 1
    return fitted


def _cut(cell: str, width: int) -> str:
    if _width(cell) <= width:
        return cell
    while _width(cell) > width - 1:
        cell = cell[:-1]
    return f"{cell}…"


def _read_json(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not JSON: {error}.", context, param=parameter) from None
