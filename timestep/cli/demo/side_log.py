"""The append-only log that the bodies of the demo's steps write themselves: a JSON line at their start and their end.

It knows nothing of the journal. A line is written at once, so it is there when the process is killed a moment later.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Phase = Literal["ready", "start", "end", "answer"]


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line. `ready` and `answer` are the process's own; `start` and `end` belong to the body of a step."""

    phase: Phase
    pid: int
    at: float
    kind: str = ""
    agent: str = ""
    name: str = ""
    step_id: int = 0
    text: str = ""


class SideLog:
    """The log at a path; every process of the demo has the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_bytes = 0

    def write(
        self, phase: Phase, *, kind: str = "", agent: str = "", name: str = "", step_id: int = 0, text: str = ""
    ) -> None:
        """Append a line."""
        line = LogLine(
            phase=phase, pid=os.getpid(), at=time.time(), kind=kind, agent=agent, name=name, step_id=step_id, text=text
        )  # fmt: skip
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(asdict(line)).encode() + b"\n")

    @contextlib.contextmanager
    def body(self, kind: str, agent: str, name: str) -> Generator[None]:
        """Log the body of the step that runs now, by the id that DBOS gave it."""
        from dbos import DBOS

        step_id = DBOS.step_id or 0
        self.write("start", kind=kind, agent=agent, name=name, step_id=step_id)
        yield
        self.write("end", kind=kind, agent=agent, name=name, step_id=step_id)

    def read_new(self) -> list[LogLine]:
        """Return the whole lines that were written since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return [LogLine(**json.loads(line)) for line in whole.splitlines()]
