"""Follow a run: its answer to stdout as it comes, a line a turn to stderr."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dbos import DBOSClient
from dbos import error as dbos_error

from timestep.cli.output import note
from timestep.events import read_events
from timestep.runs import POLL_SECONDS, SETTLED
from timestep.store.connection import Database
from timestep.store.runs import StoredRun, find_stored_run

NO_EXECUTOR = "agent_not_registered"
"""Reason of a run that was taken by an executor without its agent: it goes on by itself where the agent is known."""


class AnswerPrinter:
    """Prints the events of a run. `has_answer`: the text of its newest turn was printed."""

    def __init__(self, *, prints_text: bool) -> None:
        self.has_answer = False
        self._prints_text = prints_text
        self._is_line_open = False
        self._turn = 0
        self._attempt: tuple[int, ...] = ()

    def show(self, event: dict[str, Any]) -> None:
        """Print what an event says; text of sub-agents and of attempts that were replaced is not printed."""
        kind, is_top = event["type"], not event["path"]
        if is_top and "turn" in event and kind in ("text_delta", "turn_finished") and not self._is_current(event):
            return
        if kind == "text_delta" and is_top:
            self._write(event["text"])
        elif kind == "turn_finished":
            self._end_line()
            note(turn_line(event))

    def end(self) -> None:
        """End the line that is open."""
        self._end_line()

    def _is_current(self, event: dict[str, Any]) -> bool:
        turn, attempt = event["turn"], tuple(int(part) for part in str(event["attempt"]).split("."))
        if turn < self._turn or (turn == self._turn and attempt < self._attempt):
            return False
        if turn == self._turn and attempt > self._attempt and self.has_answer:
            self._end_line()
            note(f"turn {turn} starts over: its answer above was not finished")
        if (turn, attempt) != (self._turn, self._attempt):
            self._turn, self._attempt, self.has_answer = turn, attempt, False
        return True

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

    def _end_line(self) -> None:
        if self._is_line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._is_line_open = False


def turn_line(event: dict[str, Any]) -> str:
    """Return the line of a finished turn, such as `turn 2  model qwen3  1.2 s  1,840 tok`."""
    usage = event["usage"]
    tokens = usage["input_tokens"] + usage["output_tokens"]
    line = f"turn {event['turn']}  model {event.get('model') or '-'}  {event['seconds']:.1f} s  {tokens:,} tok"
    if not event["path"]:
        return line
    outer = event["path"].rstrip("/").rpartition("/")[2].partition(":")[0]
    return f"  {line}  {event['agent']}, inside turn {outer}"


async def follow_run(database: Database, client: DBOSClient, run_id: str, printer: AnswerPrinter) -> StoredRun:
    """Print a run as it goes until it has ended or waits for a person, over all its segments, and return it."""
    segment, offset, is_told = 1, 0, False
    stored = await database.run_until_done(find_stored_run, run_id)
    if stored is not None:
        segment = stored.run.segment
    while True:
        try:
            async for event in read_events(client, run_id, segment=segment, offset=offset):
                printer.show(event)
                offset = event["offset"] + 1
        except dbos_error.DBOSNonExistentWorkflowError:
            pass  # it is about to be made
        stored = await database.run_until_done(find_stored_run, run_id)
        if stored is not None:
            run = stored.run
            if run.segment > segment:
                segment, offset = run.segment, 0
                continue
            if run.status in SETTLED and run.reason != NO_EXECUTOR:
                printer.end()
                return stored
            if run.reason == NO_EXECUTOR and not is_told:
                is_told = True
                note(f"No executor that took the run knows the agent {run.agent!r}; it waits for one that does.")
        await asyncio.sleep(POLL_SECONDS)
