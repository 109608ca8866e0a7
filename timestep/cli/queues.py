"""`timestep queues`: list, show, create, pause, resume and delete queues."""

from __future__ import annotations

import shlex
from typing import Any

import click

from timestep.cli.output import coloured, emit, emit_json, emit_table, format_time, json_option, note
from timestep.records import Queue, QueueLimits

_LIMITS = (
    ("--global-concurrency", int, "Runs of all executors together."),
    ("--worker-concurrency", int, "Runs of one executor."),
    ("--partition-concurrency", int, "Runs of one partition; each run then needs a partition."),
    ("--rate-limit", int, "Starts in any rate period."),
    ("--rate-period-seconds", float, "The rate period; 60 when absent."),
    ("--polling-interval-seconds", float, "How often an executor looks for runs; 1 when absent."),
)


@click.group()
def command() -> None:
    """List, show, create, pause, resume and delete queues.

    \b
    Example:
      timestep queues create reports --global-concurrency 2 --rate-limit 50
    """


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the queues with what waits in them and what runs.

    \b
    Example:
      timestep queues list
    """
    from timestep.cli.connect import connect
    from timestep.client.queues import list_queues

    with connect() as connector:
        found = list_queues(connector)
    if as_json:
        emit_json(found)
    elif not found:
        note("There is no queue yet: executors make theirs when they start.")
    else:
        emit_table(
            ["NAME", "STATE", "WAITING", "RUNNING", "LIMITS"],
            [[each.name, _state(each), each.waiting, each.running, limits_text(each.limits)] for each in found],
        )


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a queue: its limits, and what is in it now.

    \b
    Example:
      timestep queues show reports
    """
    from timestep.cli.connect import connect
    from timestep.client.queues import get_queue

    with connect() as connector:
        queue = get_queue(connector, name)
    if as_json:
        emit_json(queue)
        return
    oldest = f", the oldest since {format_time(queue.oldest_waiting_at)}" if queue.oldest_waiting_at else ""
    session = f", {queue.waiting_for_session} of them for their session" if queue.waiting_for_session else ""
    emit_table(
        ["QUEUE", queue.name],
        [
            ["state", _state(queue)],
            ["waiting", f"{queue.waiting}{session}{oldest}"],
            ["running", queue.running],
            *([name.replace("_", " "), value] for name, value in _given(queue.limits)),
        ],
    )


@command.command()
@click.argument("name")
@click.option("--replace", is_flag=True, help="Change a queue that is there; a limit that is not given is then none.")
@json_option
def create(name: str, replace: bool, as_json: bool, **limits: Any) -> None:
    """Make a queue; executors take runs from it at once. May be repeated.

    \b
    Examples:
      timestep queues create reports --global-concurrency 2
      timestep queues create reports --rate-limit 50 --rate-period-seconds 60 --replace
    """
    from timestep.cli.connect import connect
    from timestep.client.queues import create_queue, get_queue

    given = QueueLimits(**{limit: value for limit, value in limits.items() if value is not None})
    with connect() as connector:
        change = create_queue(connector, name, given, replace=replace)
        queue = get_queue(connector, name)
    if as_json:
        emit_json({"change": change, "queue": queue})
    else:
        emit(f"{name}  {change}  {limits_text(queue.limits)}")


for _option, _type, _help in reversed(_LIMITS):
    create.params.insert(1, click.Option([_option], type=_type, metavar="N", help=_help))


@command.command()
@click.argument("name")
@json_option
def pause(name: str, as_json: bool) -> None:
    """Let no run of a queue start any more; those that run go on. May be repeated.

    \b
    Example:
      timestep queues pause reports
    """
    from timestep.client.queues import pause_queue

    _change(name, pause_queue, as_json=as_json, done="is paused", before="was paused before")
    if not as_json:
        note(f"  let it go on:  timestep queues resume {shlex.quote(name)}")


@command.command()
@click.argument("name")
@json_option
def resume(name: str, as_json: bool) -> None:
    """Let the runs of a paused queue start again, under the limits that it has. May be repeated.

    \b
    Example:
      timestep queues resume reports
    """
    from timestep.client.queues import resume_queue

    _change(name, resume_queue, as_json=as_json, done="goes on", before="was not paused")


@command.command()
@click.argument("name")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete a queue in which nothing waits.

    \b
    Example:
      timestep queues delete reports
    """
    from timestep.cli.connect import connect
    from timestep.client.queues import delete_queue

    with connect() as connector:
        delete_queue(connector, name)
    if as_json:
        emit_json({"deleted": name})
    else:
        emit(f"{name}  deleted")


def limits_text(limits: QueueLimits) -> str:
    """Return limits on one line, such as `2 at once, 50 starts in 60 s`."""
    texts = [
        (limits.global_concurrency, "{} at once"),
        (limits.worker_concurrency, "{} in one executor"),
        (limits.partition_concurrency, "{} in one partition"),
        (limits.rate_limit, f"{{}} starts in {limits.rate_period_seconds:g} s"),
    ]
    return ", ".join(text.format(value) for value, text in texts if value is not None) or "no limits"


def _given(limits: QueueLimits) -> list[tuple[str, object]]:
    return [
        (name, "no limit" if value is None else value)
        for name, value in vars(limits).items()
        if name != "rate_period_seconds" or limits.rate_limit is not None
    ]


def _state(queue: Queue) -> str:
    return coloured("paused", "yellow") if queue.is_paused else "open"


def _change(name: str, verb: Any, *, as_json: bool, done: str, before: str) -> None:
    from timestep.cli.connect import connect
    from timestep.client.queues import get_queue

    with connect() as connector:
        has_changed = verb(connector, name)
        queue = get_queue(connector, name)
    if as_json:
        emit_json({"change": "changed" if has_changed else "unchanged", "queue": queue})
    else:
        emit(f"{name}  {done if has_changed else before}, {queue.waiting} waiting, {queue.running} running")
