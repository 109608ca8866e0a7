"""What an execution knows of its own steps, so that it need not look."""

from __future__ import annotations

import time
from collections.abc import Iterable

OWNED_SECONDS = 0.01
"""How long an execution counts as the owner of its workflow after a proof: no longer than a cancel is under way."""


class Known:
    """What one execution of a workflow knows without a look into the journal.

    DBOS looks before each step whether it is recorded and whether the workflow is cancelled. Which steps were recorded
    when the execution began is known from its start, and nobody else adds to them. That the workflow is neither
    cancelled nor taken over is proved by each record of a step: it fails otherwise. So a step that closely follows the
    start or another step, and was not recorded at the start, needs no look.

    Args:
        recorded: The step ids that were recorded when the execution began, just now; unknown when absent.
    """

    def __init__(self, recorded: Iterable[int] | None = None) -> None:
        self._recorded = frozenset(recorded) if recorded is not None else None
        self._owned_at = time.monotonic()

    def is_owned(self, at: float) -> None:
        """Say that this execution owned the workflow at a time of the monotonic clock."""
        self._owned_at = max(self._owned_at, at)

    def is_new(self, step_id: int) -> bool:
        """Whether the step is not recorded, as long as this execution owns the workflow."""
        return self._recorded is not None and step_id not in self._recorded

    @property
    def is_owned_still(self) -> bool:
        """Whether the workflow was this execution's a moment ago."""
        return time.monotonic() - self._owned_at < OWNED_SECONDS
