"""Follow a run: its answer to stdout as it comes, a line a turn to stderr."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Any

from timestep.cli.output import clean, note
from timestep.client.connector import Connector
from timestep.client.events import stream_events
from timestep.client.runs import read_run
from timestep.ids import kind_of_step
from timestep.records import Run
from timestep.words import (
    AGENT_NOT_REGISTERED,
    CONFIGURATION_MISSING,
    MODEL_TURN,
    RESTARTED,
    RUN_FINISHED,
    RUN_INTERRUPTED,
    STEP,
    TEXT_DELTA,
    TURN_FINISHED,
    WAITING_FOR_RATE_LIMIT,
)


class AnswerPrinter:
    """Prints the events of a run as `stream_run` yields them. `has_answer`: the text of its newest turn was printed."""

    def __init__(self, *, prints_text: bool) -> None:
        self.has_answer = False
        self._prints_text = prints_text
        self._is_line_open = False
        self._turn = 0

    def show(self, event: dict[str, Any]) -> None:
        """Print what an event says; text of sub-agents is not printed."""
        kind, is_top = event["type"], not event.get("path")
        if is_top and kind in (TEXT_DELTA, TURN_FINISHED) and event["turn"] != self._turn:
            self._turn, self.has_answer = event["turn"], False
        if kind == TEXT_DELTA and is_top:
            self._write(event["text"])
        elif kind == TURN_FINISHED:
            self.end()
            note(turn_line(event))
        elif kind == WAITING_FOR_RATE_LIMIT:
            self.end()
            seconds = f"{event['seconds']:.1f} s or more"
            note(f"turn {event['turn']}  waiting for rate limit {clean(event['limit'])}, {seconds}")
        elif kind == STEP:
            note(step_line(event))
        elif kind == RESTARTED and is_top and self.has_answer and kind_of_step(event["step"]) == MODEL_TURN:
            self.end()
            self.has_answer = False
            note(f"turn {event['turn']} starts over: its answer above was not finished")

    def end(self) -> None:
        """End the line that is open."""
        if self._is_line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._is_line_open = False

    def _write(self, text: str) -> None:
        self.has_answer = True
        if not self._prints_text:
            return
        if sys.stdout.isatty():
            text = "".join(char for char in text if char.isprintable() or char in "\n\t\u200d")
        sys.stdout.write(text)
        sys.stdout.flush()
        if text:
            self._is_line_open = not text.endswith("\n")


def turn_line(event: dict[str, Any]) -> str:
    """Return the line of a finished turn, such as `turn 2  model qwen3  1.2 s  1,840 tok`."""
    usage = event["usage"]
    tokens = usage["input_tokens"] + usage["output_tokens"]
    line = f"turn {event['turn']}  model {event.get('model') or '-'}  {event['seconds']:.1f} s  {tokens:,} tok"
    if not event["path"]:
        return line
    outer = event["path"].rstrip("/").rpartition("/")[2].partition(":")[0]
    return f"  {line}  {event['agent']}, inside turn {outer}"


def step_line(event: dict[str, Any]) -> str:
    """Return the line of a recorded step, such as `tool_call:1:look_up:call_1  0.2 s`."""
    parts = [clean(event["step"]), f"{event['seconds']:.1f} s" if event["seconds"] is not None else ""]
    if "usage" in event:
        parts.append(f"{event['usage']['input_tokens'] + event['usage']['output_tokens']:,} tok")
    return "  ".join(part for part in [*parts, "failed" if event["is_error"] else ""] if part)


async def follow_run(connector: Connector, run_id: str, printer: AnswerPrinter) -> Run:
    """Print a run as it goes until it has ended or waits for a person, over all its segments, and return it."""
    async with aclosing(stream_events(connector, run_id)) as events:
        async for event in events:
            printer.show(event)
            if event["type"] not in (RUN_INTERRUPTED, RUN_FINISHED):
                continue
            run = await read_run(connector, run_id)
            if event["type"] == RUN_INTERRUPTED:
                if run.status != "interrupted" or run.segment != event["segment"]:
                    continue  # it has gone on since
                if run.reason == AGENT_NOT_REGISTERED:  # the run continues by itself where the agent is known
                    note(f"No executor that took the run knows the agent {run.agent!r}; it waits for one.")
                    continue
                if run.reason == CONFIGURATION_MISSING:
                    note("No executor that took the run has the code of its configuration; it waits for one.")
                    continue
            printer.end()
            return run
    raise AssertionError("a stream ends with the end of its run")
