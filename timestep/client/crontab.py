"""The times of a crontab: which are valid, which comes next, which lie between two moments.

They are the times at which DBOS starts its schedules, by the same library, in the zone of the crontab. A time that a
change of clocks skips is an hour later; one that comes twice counts twice.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

from timestep.errors import InvalidInputError

MOST_FIELDS = 6
_RANDOM = re.compile(r"(^|[\s,])r($|[\s,/(])", re.IGNORECASE)


def check_crontab(crontab: str, timezone: str) -> None:
    """Refuse a crontab or a zone that gives no times, or not the same ones in every process.

    Raises:
        InvalidInputError: it does; the message says what is wrong.
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInputError(
            f"The time zone {timezone!r} is not known.", hint='Use an IANA name, such as "Europe/Berlin".'
        ) from error
    if reason := _problem_of(crontab, zone):
        raise InvalidInputError(
            f"The crontab {crontab!r} is not valid: {reason}.",
            hint='Write five fields, such as "0 9 * * 1-5", or six with seconds in front.',
        )


def next_tick(crontab: str, timezone: str, *, after: datetime) -> datetime:
    """Return the first time of a crontab after a moment, in its zone."""
    return _times(crontab, ZoneInfo(timezone), after).get_next()


def newest_tick(crontab: str, timezone: str, *, before: datetime) -> datetime:
    """Return the last time of a crontab before a moment, in its zone."""
    return _times(crontab, ZoneInfo(timezone), before).get_prev()


def ticks_between(crontab: str, timezone: str, start: datetime, end: datetime) -> Generator[datetime]:
    """Yield the times of a crontab after `start` and before `end`, in its zone."""
    times = _times(crontab, ZoneInfo(timezone), start)
    while (tick := times.get_next()) < end:
        yield tick


def _times(crontab: str, zone: ZoneInfo, moment: datetime) -> croniter[datetime]:
    return croniter(crontab, moment.astimezone(zone), second_at_beginning=True, ret_type=datetime)


def _problem_of(crontab: str, zone: ZoneInfo) -> str:
    if len(crontab.split()) > MOST_FIELDS:
        return f"it has {len(crontab.split())} fields, more than {MOST_FIELDS}"
    if _RANDOM.search(crontab):
        return "random times would be others in each process"
    try:
        _times(crontab, zone, datetime.now(UTC)).get_next()
    except ValueError as error:  # the errors of croniter are some
        return str(error).rstrip(".")
    return ""
