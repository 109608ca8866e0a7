"""What became of a segment."""

from __future__ import annotations

import dataclasses
from typing import Any

from agents import (
    RunResult,
    RunResultStreaming,
)

from timestep.durable.journal.halt import Question
from timestep.durable.journal.scope import Segment
from timestep.durable.segment.session import RunSession
from timestep.store.runs import StoredRun


class NotResumable(Exception):
    """The snapshot from which a segment starts cannot be used by today's code; its cause says why."""


class NotReplayable(Exception):
    """The recorded turns of an adopted run ask for what today's code does not have; its cause says for what."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a segment ended: with a result of the SDK, with an error of the run, or halted with questions.

    `is_checkpoint`: between two turns, to go on at once in the next segment.
    """

    result: RunResult | RunResultStreaming | None
    error: Exception | None
    turn: int
    session: RunSession | None
    questions: list[Question] = dataclasses.field(default_factory=list)
    is_checkpoint: bool = False
    is_session_written: bool = False

    @property
    def is_interrupted(self) -> bool:
        """Whether the run waits for a person."""
        return bool(self.questions) or (self.result is not None and bool(self.result.interruptions))

    def finished_items(self) -> list[Any]:
        """Return the session items of the finished turns; those of an interrupted turn are held back."""
        if self.session is None:
            return []
        return self.session.finished_items(before_turn=self.turn if self.is_interrupted else None)


def items_already_stored(stored: StoredRun, segment: Segment) -> int:
    """Return how many session items are there already: who replays another segment's journal brings its items again."""
    return stored.session_items_stored if segment.is_fork else 0
