"""`timestep runs`: what is stored of runs, and the verbs on them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import click

from timestep.cli.output import (
    TimeStyle,
    clean,
    coloured,
    emit,
    emit_json,
    emit_table,
    format_time,
    json_option,
    note,
    time_option,
)
from timestep.cli.runs.decide import answer, raise_limits, settle
from timestep.errors import RunStateError
from timestep.records import Run, Step
from timestep.words import RUN_STATUSES, RunStatus

if TYPE_CHECKING:
    from timestep.client.trace import Node

LONGEST_EXCERPT = 200
"""Characters of an input, an output or a result in a table."""

_COLOURS: dict[RunStatus, str] = {
    "queued": "cyan",
    "running": "blue",
    "interrupted": "yellow",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


@click.group()
def command() -> None:
    """List, show, follow, cancel and resume runs, and decide what they wait for.

    A run id may be cut to a prefix that no other run has.

    \b
    Example:
      timestep runs list --status running
    """


@command.command("list")
@click.option(
    "--status", "statuses", type=click.Choice(RUN_STATUSES), multiple=True, help="Runs of this status; may be repeated."
)
@click.option("--agent", metavar="NAME", help="Runs of this agent.")
@click.option("--session", "session_id", metavar="ID", help="Runs of this session.")
@click.option("--id", "id_prefix", metavar="PREFIX", help="Runs whose id begins so.")
@click.option("--stranded", is_flag=True, help="Runs that no live executor can take, why, and what mends it.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@time_option
@json_option
def list_command(
    statuses: tuple[RunStatus, ...],
    agent: str | None,
    session_id: str | None,
    id_prefix: str | None,
    stranded: bool,
    limit: int,
    time_style: TimeStyle,
    as_json: bool,
) -> None:
    """Print runs, the newest first.

    \b
    Examples:
      timestep runs list --status failed --agent support
      timestep runs list --stranded
    """
    from timestep.cli.connect import connect
    from timestep.client.runs import find_runs

    if stranded:
        if statuses or agent or session_id or id_prefix:
            raise click.UsageError("--stranded lists the stranded runs of all: leave the other filters out.")
        _list_stranded(limit, as_json=as_json)
        return
    with connect() as connector:
        found = find_runs(
            connector, statuses=statuses, agent=agent, session_id=session_id, id_prefix=id_prefix, limit=limit
        )
    if as_json:
        emit_json(found)
        return
    if not found:
        note("No runs.")
        return
    emit_table(
        ["ID", "AGENT", "STATUS", "CREATED", "TIME", "TOKENS", "INPUT"],
        [
            [
                run.run_id,
                run.agent,
                _status(run),
                format_time(run.created_at, time_style),
                _seconds(run.started_at, run.finished_at),
                _tokens(run.usage.input_tokens + run.usage.output_tokens),
                _excerpt(run.input_items),
            ]
            for run in found
        ],
    )


def _list_stranded(limit: int, *, as_json: bool) -> None:
    from timestep.cli.connect import connect
    from timestep.client.executors import list_stranded_runs

    with connect() as connector:
        found = list_stranded_runs(connector, limit=limit)
    if as_json:
        emit_json(found)
        return
    if not found:
        note("No run is stranded.")
        return
    emit_table(
        ["ID", "AGENT", "STATUS", "WHY", "WHAT TO DO"],
        [[each.run_id, each.agent, each.status, each.detail, each.hint] for each in found],
    )


@command.command()
@click.argument("run_id", metavar="ID")
@time_option
@json_option
def show(run_id: str, time_style: TimeStyle, as_json: bool) -> None:
    """Draw a run as a trace: segments, turns, model and tool calls.

    Starts are counted from the start of the run.

    \b
    Example:
      timestep runs show order-43
    """
    from timestep.cli.connect import connect
    from timestep.cli.runs.asked import waiting_lines
    from timestep.client.approvals import open_approvals
    from timestep.client.executors import list_live_executors
    from timestep.client.runs import context_of_run, find_session_place, full_run_id, get_run, list_steps
    from timestep.client.trace import trace_of

    with connect() as connector:
        run = get_run(connector, full_run_id(connector, run_id))
        place = find_session_place(connector, run.run_id) if run.status == "queued" else None
        trace = trace_of(run, list_steps(connector, run))
        found = context_of_run(connector, run.run_id)
        asked = open_approvals(connector, run.run_id)
        executors = list_live_executors(connector, agent=run.agent)
    if as_json:
        segments = [node.to_json() for node in trace]
        emit_json({"run": run, "context": found, "approvals": asked, "segments": segments})
        return
    _emit_header(run, trace, time_style, context=found)
    if run.waits_for is not None:
        emit(f"waiting for rate limit {clean(run.waits_for)}, began {format_time(run.waits_since, time_style)}")
    for line in waiting_lines(run, asked):
        emit(line)
    if place is not None and place.is_waiting:
        holder = f"the run {place.holder} has it" if place.holder else "its time has not come"
        emit(f"waits for its turn in the session {run.session_id}: {holder}")
    if run.status == "queued" and not executors:
        emit(f"no live executor has the agent {run.agent!r}: start one with `timestep worker MODULE`")
    rows = [row for node in trace for row in _rows(node, run, time_style, depth=0)]
    if rows:
        emit()
        emit_table(["STEP", "START", "TIME", "ATTEMPT", "TOKENS", "RESULT"], rows)


@command.command()
@click.argument("run_id", metavar="ID")
@time_option
@json_option
def steps(run_id: str, time_style: TimeStyle, as_json: bool) -> None:
    """Print the recorded steps of a run as they are in the journal.

    \b
    Example:
      timestep runs steps order-43 --json
    """
    from timestep.cli.connect import connect
    from timestep.client.runs import full_run_id, get_run, list_steps

    with connect() as connector:
        run = get_run(connector, full_run_id(connector, run_id))
        found = list_steps(connector, run)
    if as_json:
        emit_json(found)
        return
    if not found:
        note("No step is recorded yet.")
        return
    emit_table(
        ["NAME", "SEGMENT", "ID", "START", "TIME", "ATTEMPT", "RESULT"],
        [
            [
                step.name,
                step.segment,
                step.step_id,
                _start(step.started_at, run, time_style),
                _seconds(step.started_at, step.finished_at),
                step.attempt,
                _excerpt(step.error if step.error is not None else step.result),
            ]
            for step in found
        ],
    )


@command.command()
@click.argument("run_id", metavar="ID")
@click.option(
    "--wait", "wait_seconds", type=click.FloatRange(min=0), default=0, metavar="SECONDS", help="Wait for its end."
)
@json_option
@click.pass_context
def result(context: click.Context, run_id: str, wait_seconds: float, as_json: bool) -> None:
    """Print the output of a run that has ended.

    The exit code is 4 when the run failed or was cancelled, 5 when it waits for a person, and 1 when it has not
    ended.

    \b
    Example:
      timestep runs result order-43 --wait 60
    """
    from timestep.cli.connect import connect
    from timestep.cli.runs.ending import show_ending
    from timestep.client.runs import SETTLED, full_run_id, get_run, wait_run

    with connect() as connector:
        run_id = full_run_id(connector, run_id)
        run = get_run(connector, run_id)
        if run.status not in SETTLED and wait_seconds:

            async def wait() -> Run:
                stored = await asyncio.wait_for(wait_run(connector, run_id), wait_seconds)
                return stored.run

            with contextlib.suppress(TimeoutError):
                run = asyncio.run(wait())
        if run.status not in SETTLED:
            raise RunStateError(
                f"The run {run_id!r} is {run.status} and has no result yet.",
                hint=f"Wait for it: timestep runs result {run_id} --wait 60",
            )
        context.exit(show_ending(connector, run, as_json=as_json))


@command.command()
@click.argument("run_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON Lines.")
@click.option("--from-offset", type=click.IntRange(min=0), default=0, metavar="N", help="Begin with this offset.")
@click.option("--raw", is_flag=True, help="With --json: also the events of attempts that were replaced.")
@click.pass_context
def tail(context: click.Context, run_id: str, as_json: bool, from_offset: int, raw: bool) -> None:
    """Follow a run live to its end, over interruptions: its text to stdout, the rest to stderr.

    What is stored comes first. Of a run without a stream it prints the steps as they are recorded. The exit code is 4
    when the run failed or was cancelled. After Ctrl-C the run goes on.

    \b
    Examples:
      timestep runs tail order-43
      timestep runs tail order-43 --json --from-offset 12
    """
    from timestep.cli.connect import connect
    from timestep.cli.runs.tail import tail_run
    from timestep.client.runs import full_run_id

    if raw and not as_json:
        raise click.UsageError("--raw needs --json: text that was replaced cannot be told from the rest.")
    with connect() as connector:
        run_id = full_run_id(connector, run_id)
        context.exit(tail_run(connector, run_id, from_offset=from_offset, raw=raw, as_json=as_json))


@command.command()
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--children", is_flag=True, help="Also the runs that they have started, and theirs.")
def cancel(run_ids: tuple[str, ...], children: bool) -> None:
    """Cancel runs: queued and waiting ones at once, running ones at their next step.

    What a run had stays, and `timestep runs resume` goes on from it.

    \b
    Example:
      timestep runs cancel order-43
    """
    from timestep.cli.connect import connect
    from timestep.client.runs import cancel_run, full_run_id

    with connect() as connector:
        for text in run_ids:
            run_id = full_run_id(connector, text)
            before = cancel_run(connector, run_id, children=children)
            note(f"The run {before.run_id} was {before.status} and is cancelled.")


@command.command()
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--max-turns", type=click.IntRange(min=1), help="New limit of turns, for a run that has reached its own.")
def resume(run_ids: tuple[str, ...], max_turns: int | None) -> None:
    """Let runs go on that were cancelled, failed or reached a limit, from their last finished step.

    \b
    Example:
      timestep runs resume order-43 --max-turns 30
    """
    from timestep.cli.connect import connect
    from timestep.client.executors import list_live_executors
    from timestep.client.runs import full_run_id, resume_run

    with connect() as connector:
        for text in run_ids:
            before = resume_run(connector, full_run_id(connector, text), max_turns=max_turns)
            note(f"The run {before.run_id} was {before.status} and is queued to go on.")
            if not list_live_executors(connector, agent=before.agent):
                note(f"No live executor has the agent {before.agent!r}; start one:  timestep worker MODULE")


for verb in (answer, settle, raise_limits):
    command.add_command(verb)


def _emit_header(run: Run, trace: list[Node], time_style: TimeStyle, *, context: Any) -> None:
    from timestep.cli.runs.ending import error_text
    from timestep.client.serializer import frames_of
    from timestep.client.trace import turns_of

    turns = turns_of(trace)
    tokens = max(run.usage.input_tokens + run.usage.output_tokens, sum(node.tokens for node in trace))
    status = run.status if run.reason is None else f"{run.status} ({run.reason})"
    parts = [
        run.run_id,
        run.agent,
        coloured(status, _COLOURS[run.status]),
        f"started {format_time(run.started_at, time_style)}" if run.started_at else "not started",
        _seconds(run.started_at, run.finished_at),
        f"{turns} turn{'' if turns == 1 else 's'}",
        f"{tokens:,} tok",
    ]
    emit("  ".join(part for part in parts if part))
    error = error_text(run) if run.status in ("failed", "interrupted") and run.error is not None else None
    for name, value in (
        ("session", run.session_id),
        ("input", run.input_items),
        ("output", run.output),
        ("context", json.dumps(context, ensure_ascii=False) if context else None),
        ("error", error),
    ):
        if value is not None:
            emit(f"{name:<8}{_excerpt(value)}")
    for line in frames_of(run.error) if run.error is not None else []:
        emit(f"{'':<8}  {clean(line)}")


def _status(run: Run) -> str:
    if run.waits_for is not None:
        return f"{run.status} (waiting for rate limit)"
    return f"{run.status} ({run.reason})" if run.status == "interrupted" else run.status


def _rows(node: Node, run: Run, time_style: TimeStyle, *, depth: int) -> list[list[object]]:
    step: Step | None = node.step
    row: list[object] = [
        "  " * depth + f"{node.kind} {node.name}",
        _start(node.started_at, run, time_style),
        _seconds(node.started_at, node.finished_at),
        step.attempt if step is not None else None,
        _tokens(node.tokens) if node.kind in ("model", "agent", "segment") else None,
        _excerpt(node.detail),
    ]
    return [row, *(inner for child in node.children for inner in _rows(child, run, time_style, depth=depth + 1))]


def _start(moment: datetime | None, run: Run, time_style: TimeStyle) -> str:
    if moment is None:
        return ""
    if time_style == "iso" or run.started_at is None:
        return format_time(moment, "iso")
    return f"+{max(0.0, (moment - run.started_at).total_seconds()):.1f} s"


def _seconds(start: datetime | None, end: datetime | None) -> str:
    return f"{max(0.0, (end - start).total_seconds()):.1f} s" if start is not None and end is not None else ""


def _tokens(count: int) -> str:
    return f"{count:,}" if count else ""


def _excerpt(value: object) -> str:
    """Return the beginning of a value on one line."""
    if isinstance(value, list) and value:  # the last item of an input is what the run was asked
        last = cast("list[object]", value)[-1]
        value = cast("dict[str, object]", last).get("content", last) if isinstance(last, dict) else last
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    text = " ".join(text[: 4 * LONGEST_EXCERPT].split())
    return text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 1] + "…"
