"""Every verb on schedules, for programs that do not execute runs: over DBOS's client, launching nothing.

A schedule is a row of DBOS, and what its runs are started with is the row's context: JSON with the keys `schedule`,
`crontab`, `timezone`, `catch_up`, `since` and `request`. At each tick DBOS starts the workflow `scheduled_agent_run` in
some executor, once, and that queues the run `<schedule>:<time>`.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from dbos import error as dbos_error

from timestep.client.connector import Connector
from timestep.client.crontab import check_crontab, newest_tick, next_tick, ticks_between
from timestep.client.queues import enqueue_runs, queued_run
from timestep.client.runs import request_fields, request_of
from timestep.errors import InvalidInputError, ScheduleNotFoundError
from timestep.ids import WORKFLOW_SCHEDULED_RUN, check_schedule_name, check_session_id
from timestep.records import CATCH_UPS, CatchUp, RunRequest, Schedule
from timestep.store.runs import statuses_of

log = logging.getLogger("timestep")

DEFAULT_CATCH_UP: CatchUp = "one"

LATE = timedelta(seconds=60)
"""A tick that nobody started within this time was missed. A start of DBOS may take 10 s by design."""

MOST_RUNS = 1000
"""How many runs one backfill, or one catching up, starts at most."""

LONGEST_EXCERPT = 60

Context = dict[str, Any]
"""What DBOS's row carries; see the top."""


def list_schedules(connector: Connector) -> list[Schedule]:
    """Return the schedules of this application in the order of their names."""
    found = connector.dbos.list_schedules(workflow_name=WORKFLOW_SCHEDULED_RUN)
    return sorted((_schedule(row) for row in found), key=lambda each: each.name)


def get_schedule(connector: Connector, name: str) -> Schedule:
    """Return a schedule.

    Raises:
        ScheduleNotFoundError: there is none of that name.
    """
    return _schedule(_row(connector, name))


def save_schedule(
    connector: Connector,
    name: str,
    crontab: str,
    request: RunRequest,
    *,
    timezone: str = "UTC",
    catch_up: CatchUp = DEFAULT_CATCH_UP,
    replace: bool = True,
) -> Schedule:
    """Make a schedule, or bring the one of that name up to date, and return it; its runs get ids of their own.

    A change is logged with what was before. An equal one changes nothing; a paused one stays paused.

    Raises:
        InvalidInputError: a value is malformed, the name belongs to another application or program, or there is a
            schedule of that name and `replace` is false.
    """
    check_schedule_name(name)
    check_crontab(crontab, timezone)
    if catch_up not in CATCH_UPS:
        raise InvalidInputError(f"catch_up is one of {', '.join(CATCH_UPS)}, not {catch_up!r}.")
    _check_request(request)
    known = cast("dict[str, Any] | None", connector.dbos.get_schedule(name))
    if known is not None and (known["workflow_name"] != WORKFLOW_SCHEDULED_RUN or not replace):
        raise InvalidInputError(
            f"There is a schedule {name!r} already.",
            hint=f"Take another name, look at it with `timestep schedules show {name}`, or replace it.",
        )
    new: Context = {
        "schedule": name,
        "crontab": crontab,
        "timezone": timezone,
        "catch_up": catch_up,
        "since": datetime.now(UTC).isoformat(),
        "request": request_fields(request),
    }
    old = _context(known) if known is not None else None
    if old is not None and (old["crontab"], old["timezone"]) == (crontab, timezone):
        new["since"] = old["since"]
    if old != new:
        _write(connector, new)
        if old is not None:
            log.warning("The schedule %r has changed: %s.", name, "; ".join(_changes(old, new)))
    return get_schedule(connector, name)


def pause_schedule(connector: Connector, name: str) -> Schedule:
    """Let a schedule start no runs until it is resumed, and return it. May be repeated.

    Raises:
        ScheduleNotFoundError: there is none of that name.
    """
    get_schedule(connector, name)
    connector.dbos.pause_schedule(name)
    return get_schedule(connector, name)


def resume_schedule(connector: Connector, name: str) -> Schedule:
    """Let a paused schedule start runs again, and return it; its ticks meanwhile are not caught up with.

    Raises:
        ScheduleNotFoundError: there is none of that name.
    """
    row = _row(connector, name)
    if row["status"] == "PAUSED":
        _write(connector, _context(row) | {"since": datetime.now(UTC).isoformat()})
        connector.dbos.resume_schedule(name)
    return get_schedule(connector, name)


def delete_schedule(connector: Connector, name: str) -> Schedule:
    """Delete a schedule and return it as it was; its runs stay.

    Raises:
        ScheduleNotFoundError: there is none of that name.
    """
    schedule = get_schedule(connector, name)
    connector.dbos.delete_schedule(name)
    return schedule


def trigger_schedule(connector: Connector, name: str) -> str:
    """Queue a run of a schedule now, paused or not, and return its id. A repeat is another run.

    Raises:
        ScheduleNotFoundError: there is none of that name.
    """
    row = _row(connector, name)
    [run_id] = start_ticks(connector, _context(row), [datetime.now(UTC)], application=_application(connector, row))
    return run_id


def backfill_schedule(connector: Connector, name: str, *, start: datetime, end: datetime) -> list[str]:
    """Queue the runs of the ticks from `start` on and before `end`, and return the ids of those that were not there.

    May be repeated.

    Raises:
        ScheduleNotFoundError: there is no schedule of that name.
        InvalidInputError: a time has no zone, `end` lies in the future or not after `start`, or there are more than
            1,000 ticks.
    """
    for moment in (start, end):
        if moment.tzinfo is None:
            raise InvalidInputError(f"The time {moment.isoformat()!r} has no time zone.")
    if not start < end <= datetime.now(UTC):
        raise InvalidInputError(
            f"There is no past time from {start.isoformat()} to {end.isoformat()}.",
            hint="Start before the end, and end now at the latest.",
        )
    row = _row(connector, name)
    context = _context(row)
    ticks = _ticks(context, start - timedelta(microseconds=1), end)
    if len(ticks) > MOST_RUNS:
        raise InvalidInputError(
            f"The schedule {name!r} has more than {MOST_RUNS:,} ticks from {start.isoformat()} to {end.isoformat()}.",
            hint="Backfill a shorter time, and the rest after it.",
        )
    return start_ticks(connector, context, ticks, application=_application(connector, row))


def start_ticks(connector: Connector, context: Context, ticks: Iterable[datetime], *, application: str) -> list[str]:
    """Queue the runs of ticks, and return the ids of those that were not there. May be repeated."""
    requests = [request_of(f"{context['schedule']}:{tick.isoformat()}", context["request"]) for tick in ticks]
    known = connector.database.run_sync(statuses_of, [request.run_id for request in requests]) if requests else {}
    new = [request for request in requests if request.run_id not in known]
    return enqueue_runs(connector, [queued_run(request, application=application) for request in new])


def start_tick(
    connector: Connector, context: Context, tick: datetime, *, workflow_id: str, application: str
) -> str | None:
    """Queue the run of the tick for which DBOS has started `workflow_id`, and return its id.

    None when that came too late, after an outage or a sleep of the machine, and the tick is not caught up with.
    """
    if "catch_up" in context:
        [workflow] = connector.dbos.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False)
        started_at = datetime.fromtimestamp((workflow.created_at or 0) / 1000, UTC)
        if not _is_due(context, tick, at=started_at):
            log.warning("The tick %s of the schedule %r was missed.", tick.isoformat(), context["schedule"])
            return None
    start_ticks(connector, context, [tick], application=application)
    return f"{context['schedule']}:{tick.isoformat()}"


def start_missed(connector: Connector, *, until: datetime) -> list[tuple[str, datetime]]:
    """Queue runs of ticks that nobody started before `until`, as each schedule asks; return name and newest tick.

    A tick was missed when it comes after the last one that was started, and after the schedule's times began to
    count. Paused schedules miss nothing. May be repeated.
    """
    caught_up: list[tuple[str, datetime]] = []
    for row in connector.dbos.list_schedules(workflow_name=WORKFLOW_SCHEDULED_RUN, status="ACTIVE"):
        schedule, context = _schedule(cast("Any", row)), _context(cast("Any", row))
        counted = [each for each in (schedule.since, schedule.last_tick_at) if each is not None]
        newest = newest_tick(schedule.crontab, schedule.timezone, before=until)
        if not counted or newest <= max(counted):
            continue
        ticks = _newest_ticks(context, max(counted), until) if schedule.catch_up == "all" else [newest]
        due = [tick for tick in ticks if _is_due(context, tick, at=until)]
        started = start_ticks(connector, context, due, application=_application(connector, cast("Any", row)))
        if started:
            log.warning("The schedule %r has missed ticks; %d of them are started now.", schedule.name, len(started))
        caught_up.append((schedule.name, newest))
    return caught_up


def _application(connector: Connector, row: Any) -> str:
    """Return the application whose executors start the runs of a schedule."""
    return row["application_name"] or connector.application


def _check_request(request: RunRequest) -> None:
    if not request.agent:
        raise InvalidInputError("No agent was given.", hint="Give the name of an agent that executors have.")
    if not (request.input_items.strip() if isinstance(request.input_items, str) else request.input_items):
        raise InvalidInputError("The input is empty.", hint="Give the agent some text, or a list of items.")
    if request.session_id is not None:
        check_session_id(request.session_id)


def _is_due(context: Context, tick: datetime, *, at: datetime) -> bool:
    """Return whether a tick that is started at a moment should still be."""
    catch_up: CatchUp = context["catch_up"]
    if catch_up == "all" or at - tick <= LATE:
        return True
    return catch_up == "one" and next_tick(context["crontab"], context["timezone"], after=tick) > at


def _ticks(context: Context, start: datetime, end: datetime) -> list[datetime]:
    """Return the ticks after `start` and before `end`, of many the first ones and one more than may be started."""
    return list(itertools.islice(ticks_between(context["crontab"], context["timezone"], start, end), MOST_RUNS + 1))


def _newest_ticks(context: Context, start: datetime, end: datetime) -> list[datetime]:
    """Return the ticks after `start` and before `end`, of many the newest ones."""
    ticks, before = list[datetime](), end
    while (before := newest_tick(context["crontab"], context["timezone"], before=before)) > start:
        if len(ticks) == MOST_RUNS:
            log.warning(
                "The schedule %r has missed more than %d ticks, and is caught up with from %s on; for those before:"
                " timestep schedules backfill %s --from %s --to %s",
                context["schedule"], MOST_RUNS, ticks[-1].isoformat(), context["schedule"], start.isoformat(),
                ticks[-1].isoformat(),
            )  # fmt: skip
            break
        ticks.append(before)
    return ticks[::-1]


def _row(connector: Connector, name: str) -> dict[str, Any]:
    row = cast("dict[str, Any] | None", connector.dbos.get_schedule(name))
    if row is None or row["workflow_name"] != WORKFLOW_SCHEDULED_RUN:
        raise ScheduleNotFoundError(f"There is no schedule {name!r}.")
    return row


def _write(connector: Connector, context: Context) -> None:
    try:
        connector.dbos.apply_schedules(
            [
                {
                    "schedule_name": context["schedule"],
                    "workflow_name": WORKFLOW_SCHEDULED_RUN,
                    "schedule": context["crontab"],
                    "context": context,
                    "cron_timezone": context["timezone"],
                }
            ]
        )
    except dbos_error.DBOSException as error:
        raise InvalidInputError(
            f"The schedule {context['schedule']!r} cannot be stored: {error}",
            hint="Another application of this database may have a schedule of that name; take another one.",
        ) from error


def _context(row: dict[str, Any]) -> Context:
    """Return the context of a row, in full; those of version 0.1.0's first schedules were shorter."""
    return {
        "crontab": row["schedule"],
        "timezone": row["cron_timezone"] or "UTC",
        "catch_up": "none",
        "since": None,
        **row["context"],
    }


def _schedule(row: Any) -> Schedule:
    context = _context(row)
    request, is_paused = request_of("", context["request"]), row["status"] == "PAUSED"
    crontab, timezone = context["crontab"], context["timezone"]
    return Schedule(
        name=row["schedule_name"],
        crontab=crontab,
        timezone=timezone,
        catch_up=context["catch_up"],
        agent=request.agent,
        input_items=request.input_items,
        session_id=request.session_id,
        is_paused=is_paused,
        since=_moment(context["since"]),
        last_tick_at=_moment(row["last_fired_at"]),
        next_tick_at=None if is_paused else next_tick(crontab, timezone, after=datetime.now(UTC)),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _changes(old: Context, new: Context) -> Sequence[str]:
    """Return what is another in a schedule, as people read it."""
    before = {**old["request"], **{key: old[key] for key in ("crontab", "timezone", "catch_up")}}
    after = {**new["request"], **{key: new[key] for key in ("crontab", "timezone", "catch_up")}}
    return [
        f"{key} {_excerpt(before.get(key))} -> {_excerpt(value)}"
        for key, value in after.items()
        if before.get(key) != value
    ]


def _excerpt(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 1] + "…"


__all__ = [
    "DEFAULT_CATCH_UP", "backfill_schedule", "delete_schedule", "get_schedule", "list_schedules", "pause_schedule",
    "resume_schedule", "save_schedule", "start_missed", "start_tick", "start_ticks", "trigger_schedule",
]  # fmt: skip
