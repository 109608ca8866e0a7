"""`timestep runs tail`: a run as it goes, or its events as JSON Lines, to its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from timestep.cli.errors import ExitCode
from timestep.cli.output import clean, emit, emit_json_line, note
from timestep.cli.runs.ending import show_ending
from timestep.cli.runs.follow import AnswerPrinter, step_line
from timestep.client.connector import Connector
from timestep.client.events import stream_events
from timestep.client.runs import get_run
from timestep.words import RUN_INTERRUPTED, STEP, TOOL_STARTED


def tail_run(connector: Connector, run_id: str, *, from_offset: int, raw: bool, as_json: bool) -> ExitCode:
    """Print the events of a run to its end and return the exit code; Ctrl-C ends it, and the run goes on."""
    printer = AnswerPrinter(prints_text=True)
    try:
        asyncio.run(_tail(connector, run_id, printer, from_offset=from_offset, raw=raw, as_json=as_json))
    except KeyboardInterrupt:
        printer.end()
        return ExitCode.INTERRUPTED
    run = get_run(connector, run_id)
    return show_ending(connector, run, as_json=False, has_answer=as_json or printer.has_answer)


async def _tail(
    connector: Connector, run_id: str, printer: AnswerPrinter, *, from_offset: int, raw: bool, as_json: bool
) -> None:
    events = stream_events(connector, run_id, from_offset, raw=raw)
    async with aclosing(events):
        async for event in events:
            if as_json:
                emit_json_line(event)
            else:
                _show(event, printer)
    printer.end()


def _show(event: dict[str, Any], printer: AnswerPrinter) -> None:
    kind = event["type"]
    if kind == STEP:
        emit(step_line(event))
    elif kind == TOOL_STARTED:
        printer.end()
        note(f"turn {event['turn']}  tool {clean(event['tool'])}({clean(event['arguments'])})")
    elif kind == RUN_INTERRUPTED:
        printer.end()
        asked = ", ".join(f"{each['tool']}({each['arguments']})" for each in event["approvals"] if each["tool"])
        note(clean(f"interrupted ({event['reason']})" + (f", waits for a decision about {asked}" if asked else "")))
    else:
        printer.show(event)
