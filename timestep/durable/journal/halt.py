"""How a segment ends before an effect that a person must decide about first.

The body of a step raises `Halted`: nothing is recorded for the step, so that it runs when the run goes on. Steps that
are under way finish and are recorded, none begins any more, and then the segment ends as interrupted. The next one
goes on from a copy of the journal. A crash before the end changes nothing: the same bodies ask the same again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from timestep.durable.seams.user_code import EngineSignal
from timestep.errors import TimestepError
from timestep.words import ApprovalKind


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a person must decide; `error` is what a run that may not ask fails of, and one whose question `is_fatal`."""

    kind: ApprovalKind
    agent: str
    tool: str = ""
    call_id: str = ""
    call_key: str = ""
    arguments: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    error: TimestepError
    is_fatal: bool = False


class Halted(EngineSignal):
    """The segment ends here; no `Exception`, so that no failure handler of the SDK takes it for a tool result."""

    def __init__(self, question: Question | None = None) -> None:
        super().__init__(question.kind if question is not None else "halted")
        self.question = question


@dataclass(kw_only=True)
class Halt:
    """Whether a segment halts, why, and how many of its steps are under way."""

    questions: list[Question] = field(default_factory=list)
    under_way: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Note that a step begins."""
        self.under_way += 1

    def end(self) -> None:
        """Note that a step is over."""
        self.under_way -= 1
        self._changed.set()

    async def ask(self, question: Question) -> Halted:
        """Halt the segment with a question; return what to raise when the other steps are over."""
        if not any(each.kind == question.kind and each.call_key == question.call_key for each in self.questions):
            self.questions.append(question)
        return await self.quiet()

    async def quiet(self) -> Halted:
        """Return what to raise when no step of the segment is under way any more."""
        while self.under_way:
            self._changed.clear()
            await self._changed.wait()
        return Halted()
