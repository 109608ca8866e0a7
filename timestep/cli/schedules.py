"""`timestep schedules`: runs by the clock, and the verbs on them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from timestep.cli.output import (
    TimeStyle,
    context_option,
    emit,
    emit_json,
    emit_table,
    format_time,
    json_option,
    note,
    time_option,
)
from timestep.records import CATCH_UPS, CatchUp, RunRequest, Schedule

if TYPE_CHECKING:
    from timestep.client.connector import Connector

SHOWN_RUNS = 5
"""How many runs `show` prints."""


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime:
    """Return the moment of a day or a time as ISO 8601, in UTC when it says no zone; now when it is absent."""
    if value is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time: write 2026-11-01, or 2026-11-01T06:00:00+01:00.", context, param=parameter
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.group()
def command() -> None:
    """List, make, pause, trigger and backfill schedules.

    Each tick of a schedule starts one run, with the id NAME:TIME, in any executor that has the agent.

    \b
    Example:
      timestep schedules list
    """


@command.command("list")
@time_option
@json_option
def list_command(time_style: TimeStyle, as_json: bool) -> None:
    """Print the schedules of this application.

    \b
    Example:
      timestep schedules list --time iso
    """
    from timestep.cli.connect import connect
    from timestep.client.schedules import list_schedules

    with connect() as connector:
        found = list_schedules(connector)
    if as_json:
        emit_json(found)
        return
    if not found:
        note("No schedules.")
        return
    emit_table(
        ["NAME", "CRONTAB", "ZONE", "AGENT", "CATCH UP", "LAST TICK", "NEXT TICK"],
        [
            [
                each.name,
                each.crontab,
                each.timezone,
                each.agent,
                each.catch_up,
                format_time(each.last_tick_at, time_style),
                "paused" if each.is_paused else format_time(each.next_tick_at, time_style),
            ]
            for each in found
        ],
    )


@command.command()
@click.argument("name")
@time_option
@json_option
def show(name: str, time_style: TimeStyle, as_json: bool) -> None:
    """Print a schedule and its newest runs.

    \b
    Example:
      timestep schedules show nightly-report
    """
    from timestep.cli.connect import connect
    from timestep.client.executors import list_live_executors
    from timestep.client.runs import find_runs
    from timestep.client.schedules import get_schedule

    with connect() as connector:
        schedule = get_schedule(connector, name)
        runs = find_runs(connector, id_prefix=f"{name}:", limit=SHOWN_RUNS)
        has_executor = bool(list_live_executors(connector, agent=schedule.agent))
    if as_json:
        emit_json({"schedule": schedule, "runs": runs})
        return
    for title, value in (
        ("name", schedule.name),
        ("crontab", schedule.crontab),
        ("zone", schedule.timezone),
        ("agent", schedule.agent),
        ("input", schedule.input_items),
        ("session", schedule.session_id),
        ("catch up", schedule.catch_up),
        ("last tick", format_time(schedule.last_tick_at, time_style)),
        ("next tick", "paused" if schedule.is_paused else format_time(schedule.next_tick_at, time_style)),
    ):
        if value:
            emit(f"{title:<11}{value}")
    if runs:
        emit()
        emit_table(["RUN", "STATUS", "CREATED"],
                   [[run.run_id, run.status, format_time(run.created_at, time_style)] for run in runs])  # fmt: skip
    if not has_executor:
        _note_no_executor(schedule)


@command.command()
@click.argument("name")
@click.argument("crontab")
@click.argument("text")
@click.option("--agent", required=True, metavar="NAME", help="Agent of the runs, as executors know it.")
@click.option("--session", "session_id", metavar="ID", help="Conversation that each run goes on with.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Zone of the crontab.")
@click.option(
    "--catch-up", type=click.Choice(CATCH_UPS), default="one", show_default=True,
    help="Which missed ticks are started later: all, the newest one, or none.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="Take the place of the schedule of that name.")
@context_option
@json_option
def create(
    name: str, crontab: str, text: str, agent: str, session_id: str | None, timezone: str, catch_up: CatchUp,
    replace: bool, run_context: Any, as_json: bool,
) -> None:  # fmt: skip
    """Make a schedule: at each time of CRONTAB an agent runs with the input TEXT.

    CRONTAB has five fields, or six with seconds in front.

    \b
    Example:
      timestep schedules create nightly "0 6 * * 1-5" "Write the report." --agent reporter --timezone Europe/Berlin
    """
    from timestep.cli.connect import connect
    from timestep.client.executors import list_live_executors
    from timestep.client.schedules import save_schedule

    request = RunRequest(run_id="", agent=agent, input_items=text, session_id=session_id, context=run_context)
    with connect() as connector:
        schedule = save_schedule(
            connector, name, crontab, request, timezone=timezone, catch_up=catch_up, replace=replace
        )
        has_executor = bool(list_live_executors(connector, agent=agent))
    if as_json:
        emit_json(schedule)
    elif schedule.next_tick_at is not None:
        note(f"The schedule {name} runs next {format_time(schedule.next_tick_at)}.")
    if not has_executor:
        _note_no_executor(schedule)


@command.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def pause(names: tuple[str, ...]) -> None:
    """Let schedules start no runs until they are resumed; runs that are under way go on.

    \b
    Example:
      timestep schedules pause nightly-report
    """
    from timestep.client.schedules import pause_schedule

    for name, _ in _changed(pause_schedule, names):
        note(f"The schedule {name} is paused.  resume it:  timestep schedules resume {shlex.quote(name)}")


@command.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def resume(names: tuple[str, ...]) -> None:
    """Let paused schedules start runs again; what they have passed is not caught up with.

    \b
    Example:
      timestep schedules resume nightly-report
    """
    from timestep.client.schedules import resume_schedule

    for name, schedule in _changed(resume_schedule, names):
        note(f"The schedule {name} runs next {format_time(schedule.next_tick_at)}.")


@command.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def delete(names: tuple[str, ...]) -> None:
    """Delete schedules; their runs stay.

    A program that makes the schedule makes it again when it starts.

    \b
    Example:
      timestep schedules delete nightly-report
    """
    from timestep.client.schedules import delete_schedule

    for name, _ in _changed(delete_schedule, names):
        note(f"The schedule {name} is deleted.")


@command.command()
@click.argument("name")
def trigger(name: str) -> None:
    """Queue a run of a schedule now, paused or not, and print its id.

    \b
    Example:
      timestep schedules trigger nightly-report
    """
    from timestep.cli.connect import connect
    from timestep.client.schedules import get_schedule, trigger_schedule

    with connect() as connector:
        emit(trigger_schedule(connector, name))
        _note_executors(connector, get_schedule(connector, name))


@command.command()
@click.argument("name")
@click.option(
    "--from", "start", callback=_moment, required=True, metavar="TIME", help="First moment, in UTC if it says no zone."
)
@click.option("--to", "end", callback=_moment, metavar="TIME", help="End, itself not included; now when it is absent.")
def backfill(name: str, start: datetime, end: datetime) -> None:
    """Queue the runs of past ticks and print the ids of those that were not there.

    It may be repeated: a tick that has a run gets no other one. At most 1,000 ticks at once.

    \b
    Example:
      timestep schedules backfill nightly-report --from 2026-11-01 --to 2026-11-08
    """
    from timestep.cli.connect import connect
    from timestep.client.schedules import backfill_schedule, get_schedule

    with connect() as connector:
        run_ids = backfill_schedule(connector, name, start=start, end=end)
        for run_id in run_ids:
            emit(run_id)
        if run_ids:
            _note_executors(connector, get_schedule(connector, name))
        else:
            note("Every tick of that time has a run, or there was none.")


def _changed(verb: Callable[[Connector, str], Schedule], names: Sequence[str]) -> Generator[tuple[str, Schedule]]:
    """Change schedules one after the other, and yield each name with what `verb` returned."""
    from timestep.cli.connect import connect

    with connect() as connector:
        for name in names:
            yield name, verb(connector, name)


def _note_executors(connector: Connector, schedule: Schedule) -> None:
    from timestep.client.executors import list_live_executors

    if not list_live_executors(connector, agent=schedule.agent):
        _note_no_executor(schedule)


def _note_no_executor(schedule: Schedule) -> None:
    note(f"No live executor has the agent {schedule.agent!r}; start one:  timestep worker MODULE")
