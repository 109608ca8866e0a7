"""`timestep executors`: the processes that execute runs."""

from __future__ import annotations

import click

from timestep.cli.output import TimeStyle, coloured, emit_json, emit_table, format_time, json_option, note, time_option


@click.group()
def command() -> None:
    """List the processes that execute runs.

    \b
    Example:
      timestep executors list
    """


@command.command("list")
@time_option
@json_option
def list_command(time_style: TimeStyle, as_json: bool) -> None:
    """Print every executor, the oldest first: version, agents, queues and how many runs it executes.

    An executor is alive while it holds its lock in Postgres. One that is gone is listed until another one has taken
    its runs over. The JSON names the runs, the 100 that began first.

    \b
    Example:
      timestep executors list --json
    """
    from timestep.cli.connect import connect
    from timestep.client.executors import list_executors

    with connect() as connector:
        found = list_executors(connector)
    if as_json:
        emit_json(found)
        return
    if not found:
        note("No executors. Start one:  timestep worker MODULE")
        return
    emit_table(
        ["ID", "STATUS", "VERSION", "RUNS", "AGENTS", "QUEUES", "HOST", "PID", "STARTED", "LAST SEEN"],
        [
            [
                each.executor_id,
                coloured("alive", "green") if each.is_alive else coloured("gone", "red"),
                each.application_version,
                each.running,
                ", ".join(each.agents),
                "all" if each.queues is None else ", ".join(each.queues) or "none",
                each.host,
                each.pid,
                format_time(each.started_at, time_style),
                "now" if each.is_alive else format_time(each.last_seen_at, time_style),
            ]
            for each in found
        ],
    )
