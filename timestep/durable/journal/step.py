"""How a step is run: its envelope, its size limit, and DBOS's errors on their way past the SDK.

The SDK's failure handlers turn any `Exception` into text for the model. An error of DBOS there would become a tool
result; so it travels as `StepFailure`, which is no `Exception`, and `run.py` turns it back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from dbos import DBOS, StepReservation
from dbos import error as dbos_error

from timestep.client.serializer import decode_error, encode_error
from timestep.durable.journal.halt import Halted
from timestep.durable.journal.scope import Segment
from timestep.durable.journal.values import Json, dump_checked
from timestep.durable.process import running_steps, turnstile
from timestep.durable.process.gate import gate
from timestep.durable.seams import dbos_journal
from timestep.durable.seams.user_code import EngineSignal, contained
from timestep.event_loops import explained
from timestep.store.json_text import dump_json

Envelope = dict[str, Json]

LONG_SECONDS = 0.1
"""After a step that took so long the run goes through the turnstile: others may have waited for the same."""


class StepFailure(EngineSignal):
    """An error of DBOS itself, not of the step's body; `cause` is the error."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def run_step(
    segment: Segment,
    reservation: StepReservation,
    name: str,
    body: Callable[[], Awaitable[Envelope]],
    *,
    max_bytes: int | None = None,
) -> Envelope:
    """Run `body` as the step `name` and return its envelope, recorded or just made.

    What the body raises is recorded as `{"error": ...}` and is not raised here. A repeat is harmless when the step
    was recorded: the body does not run again. A step that was started and not recorded runs again. A cancelled run
    interrupts the body.

    Raises:
        StepFailure: DBOS could not run or read the step; the run must stop.
        Halted: a person must decide first; every other step of the segment is over.
    """
    limit_bytes = segment.max_result_bytes if max_bytes is None else max_bytes
    began_at = math.inf

    async def enclosed() -> tuple[Envelope, str]:
        nonlocal began_at
        await _pass_gate(has_begun=True)  # the process may have been paused since
        segment.is_live = True
        began_at = time.monotonic()
        try:
            envelope = await contained(body)
            return envelope, dump_checked(envelope, limit_bytes=limit_bytes, what=f"the step {name!r}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded
            envelope = {"error": encode_error(explained(error))}
            return envelope, dump_json(envelope)

    await _pass_gate()
    halt = segment.halt
    if halt.questions:
        raise await halt.quiet()
    halt.begin()
    try:
        envelope = await _run(segment, reservation, name, enclosed)
    except Halted as halted:
        question = halted.question
    else:
        if time.monotonic() - began_at >= LONG_SECONDS:
            await turnstile.go_through()
        return envelope
    finally:
        halt.end()
    assert question is not None
    if segment.is_foreign:  # a workflow of the program's own has no run that could wait
        raise StepFailure(question.error)
    raise await halt.ask(question)


async def _pass_gate(*, has_begun: bool = False) -> None:
    try:
        await gate.pass_through(has_begun=has_begun)
    except Exception as error:
        raise StepFailure(error) from error


async def _run(
    segment: Segment,
    reservation: StepReservation,
    name: str,
    body: Callable[[], Coroutine[Any, Any, tuple[Envelope, str]]],
) -> Envelope:
    running = running_steps.enter(DBOS.workflow_id or "")
    try:
        with gate.held():
            return await dbos_journal.run_reserved(reservation, name, body, segment.known)
    except asyncio.CancelledError:
        if running.is_interrupted:
            text = f"The run of {running.workflow_id!r} was cancelled; the step {name!r} is interrupted."
            raise dbos_error.DBOSWorkflowCancelledError(text) from None
        raise
    except Exception as error:
        raise StepFailure(error) from error
    finally:
        running_steps.leave(running)


def value_of(envelope: Envelope) -> Json:
    """Return the value of an envelope, or raise the error that it carries."""
    if "error" in envelope:
        raise decode_error(envelope["error"])
    return envelope["ok"]


def is_history_change(error: BaseException) -> bool:
    """Whether DBOS found another step in the journal than the code asked for."""
    return isinstance(error, (dbos_error.DBOSUnexpectedStepError, dbos_error.DBOSStepNondeterminismError))
