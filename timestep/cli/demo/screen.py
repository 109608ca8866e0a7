"""What the demo shows: a table with a row a step and a column a process, drawn in place on a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from timestep.cli.demo.side_log import LogLine
from timestep.cli.output import coloured, emit

NAME_WIDTH = 30
CELL_WIDTH = 15
SUB_AGENT = "guide"

_COLOURS = {"ran": "green", "runs": "yellow", "lost": "red", "replayed": "cyan"}


@dataclass(kw_only=True)
class Process:
    """One process of the demo, as its column shows it."""

    pid: int
    known: frozenset[int]
    is_ready: bool = False
    is_killed: bool = False
    recorded: frozenset[int] = frozenset()
    started: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    replays: bool = False


class Screen:
    """The table and the line below it. Without a terminal each change is a line, and the table comes at the end."""

    def __init__(self, *, is_silent: bool) -> None:
        self.processes: list[Process] = []
        self.is_silent = is_silent
        self.is_live = not is_silent and sys.stdout.isatty()
        self._rows: dict[int, LogLine] = {}
        self._status = ""
        self._drawn = 0

    def started(self, pid: int, known: frozenset[int]) -> None:
        """Show a new process; `known` are the steps that Postgres has before it begins."""
        self.processes.append(Process(pid=pid, known=known))
        what = "starts" if not known else f"starts and takes the run over, with {_steps(len(known))} in Postgres"
        self.say(f"process {len(self.processes)} (pid {pid}) {what}")

    def add(self, line: LogLine) -> None:
        """Show a line of the side log."""
        process = self.processes[-1]
        if line.phase == "ready":
            process.is_ready = True
            return self.draw()
        if line.phase == "answer":
            process.replays = True
            return self.draw()
        if line.kind != "handoff" or line.phase == "end":
            self._rows.setdefault(line.step_id, line)
        if line.phase == "start":
            if not process.replays and process.known:
                process.replays = True
                count = len(process.known)
                self.say(f"process {len(self.processes)} replays {_steps(count)} from Postgres: nothing of them runs")
            process.started[line.step_id] = line.at
        else:
            process.ended[line.step_id] = line.at
            self._tell(f"  {self._label(line):<{NAME_WIDTH}}{self._seconds(process, line.step_id)}")
        return self.draw()

    def killed(self, recorded: frozenset[int]) -> None:
        """Show that the newest process was killed, and what Postgres has of its work."""
        process = self.processes[-1]
        process.is_killed, process.recorded = True, recorded
        lost = [
            self._label(self._rows[each]).strip()
            for each in process.started
            if each not in recorded and each in self._rows
        ]
        inside = f"in the middle of {', '.join(lost)}" if lost else "between two steps"
        who = f"process {len(self.processes)} (pid {process.pid})"
        self.say(f"kill -9  {who} {inside}; {_steps(len(recorded))} in Postgres")

    def say(self, text: str) -> None:
        """Show what happens now."""
        self._status = text
        self._tell(text)
        self.draw()

    def draw(self) -> None:
        """Draw the table again in its place, where it fits."""
        if not self.is_live:
            return
        size = shutil.get_terminal_size()
        lines = [*self.table(size.columns), "", self._status[: size.columns - 1]]
        lines = lines[-(size.lines - 1) :]
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        sys.stdout.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stdout.flush()
        self._drawn = len(lines)

    def end(self) -> None:
        """Leave the finished table on the screen."""
        self._status = ""
        if self.is_live:
            self.draw()
        elif not self.is_silent:
            emit()
            for line in self.table(NAME_WIDTH + CELL_WIDTH * len(self.processes)):
                emit(line)
            emit()

    def table(self, width: int) -> list[str]:
        """Return the table's lines; of many processes the last ones that fit."""
        fitting = max(1, (width - NAME_WIDTH) // CELL_WIDTH)
        first = max(0, len(self.processes) - fitting)
        shown = list(enumerate(self.processes))[first:]
        lines = ["step".ljust(NAME_WIDTH) + "".join(f"process {number + 1}".ljust(CELL_WIDTH) for number, _ in shown)]
        for step_id in sorted(self._rows):
            cells = "".join(self._cell(process, step_id) for _, process in shown)
            lines.append(self._label(self._rows[step_id]).ljust(NAME_WIDTH)[:NAME_WIDTH] + cells.rstrip())
        return lines

    def _cell(self, process: Process, step_id: int) -> str:
        if step_id in process.started:
            is_over = step_id in process.ended
            if process.is_killed and step_id not in process.recorded:
                return self._paint("✗ killed", "lost")
            return (
                self._paint(f"✓ {self._seconds(process, step_id)}", "ran") if is_over else self._paint("… runs", "runs")
            )
        if step_id in process.known:
            return self._paint("· replayed", "replayed") if process.replays else self._paint("in Postgres", "")
        return self._paint("", "")

    def _paint(self, text: str, style: str) -> str:
        padded = text.ljust(CELL_WIDTH)
        return coloured(padded, _COLOURS[style]) if style else padded

    def _label(self, line: LogLine) -> str:
        indent = "    " if line.agent == SUB_AGENT else ""
        if line.kind == "model":
            return f"{indent}{line.agent} asks its model"
        return f"{indent}  hands over to {line.name}" if line.kind == "handoff" else f"{indent}  {line.name}"

    def _seconds(self, process: Process, step_id: int) -> str:
        return f"{process.ended[step_id] - process.started.get(step_id, process.ended[step_id]):.1f} s"

    def _tell(self, text: str) -> None:
        if not self.is_live and not self.is_silent:
            emit(text)
            sys.stdout.flush()


def count_table(rows: Sequence[tuple[str, int, int, int, int]]) -> list[str]:
    """Return the lines of the last table: what was needed, made, and made again."""
    head = ("", "needed", "made", "under way when killed", "finished and made again")
    lines = [f"{head[0]:<12}" + "  ".join(f"{word:>8}" if len(word) < 8 else word for word in head[1:])]
    widths = [max(8, len(word)) for word in head[1:]]
    for name, *numbers in rows:
        lines.append(
            f"{name:<12}" + "  ".join(f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
        )
    return lines


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
