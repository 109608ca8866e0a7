"""A step of code that may change the run's context and that no model reads: guardrails, callbacks of handoffs."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dbos import StepReservation

from timestep.client.serializer import encode_error
from timestep.durable.journal.context_changes import apply_changes, fingerprint, note_changes, take_changes
from timestep.durable.journal.scope import Scope
from timestep.durable.journal.step import Envelope, run_step

log = logging.getLogger("timestep")


async def run_step_on_context(
    scope: Scope, reservation: StepReservation, name: str, body: Callable[[], Awaitable[Envelope]], *, context: Any
) -> Envelope:
    """Run `body` as a step with its changes of the context; a repeat that finds the record makes them again."""
    segment, has_run = scope.segment, False

    async def recorded() -> Envelope:
        nonlocal has_run
        has_run, before = True, fingerprint(context)
        envelope: Envelope
        try:
            envelope = await body()
        except Exception as error:  # noqa: BLE001 - failing code changes the context too
            envelope = {"error": encode_error(error)}
        changes = take_changes(before, context)
        if changes.lost:
            log.error("What the step %r put into the context was not kept: %s.", name, "; ".join(changes.lost.values()))
        if changes.recorded:
            envelope |= {"context": changes.recorded, "finished_at": time.time(), "attempt": segment.attempt}
        return envelope

    envelope = await run_step(segment, reservation, name, recorded)
    at = (scope.turn_of_run, envelope.get("attempt", 1), envelope.get("finished_at") or 0.0)
    make = note_changes if has_run else apply_changes
    make(context, envelope.get("context"), at=at, newest=segment.context_changes)
    return envelope
