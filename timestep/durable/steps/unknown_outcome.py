"""Calls whose tool is not simply repeated: stored before they start, and settled by a person after a crash.

`tool_policy(tool, on_crash="ask")`: a call that was started and not recorded is a call whose outcome nobody knows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from timestep.durable.journal.halt import Halted, Question
from timestep.durable.journal.scope import Segment
from timestep.durable.journal.step import Envelope
from timestep.durable.process.engine import engine
from timestep.errors import OutcomeUnknownError
from timestep.records import Approval, ToolCall
from timestep.store.json_text import storable_text
from timestep.store.tool_calls import ToolCallRow, reserve_call, restart_call
from timestep.words import OUTCOME_UNKNOWN


async def settle_or_reserve(
    segment: Segment, call: ToolCall, *, key: str, agent: str, arguments: str, started_at: float, is_fatal: bool
) -> Envelope | None:
    """Return the envelope that a person has settled, or None when the body may start: it is reserved then.

    Raises:
        Halted: an earlier start was not recorded, and nobody has settled it.
    """
    row = ToolCallRow(
        run_id=segment.run_id,
        call_key=key,
        segment=segment.number,
        agent=agent,
        tool=call.tool,
        call_id=storable_text(call.call_id),
        arguments=arguments,
        attempt=call.attempt,
        started_at=datetime.fromtimestamp(started_at, UTC),
    )
    known = await engine().database.run_until_done(reserve_call, row)
    if known.started_at == row.started_at:
        return None
    if known.finished_at is None:
        settled = _settlement(segment, known)
        if settled is None:
            raise Halted(_question(known, is_fatal=is_fatal))
        if settled["outcome"] == "happened":
            return {"ok": settled.get("result")}
    await engine().database.run_until_done(restart_call, row)
    return None


def _settlement(segment: Segment, known: ToolCallRow) -> dict[str, Any] | None:
    """Return what was found out about this very start; one of an earlier start says nothing about it."""
    for decision in reversed(segment.decisions):
        if _is_about(decision, known) and decision.status == "answered":
            return decision.answer
    return None


def _is_about(decision: Approval, known: ToolCallRow) -> bool:
    details = decision.details or {}
    return (
        decision.kind == OUTCOME_UNKNOWN
        and decision.call_key == known.call_key
        and details.get("started_at") == _iso(known.started_at)
    )


def _question(known: ToolCallRow, *, is_fatal: bool) -> Question:
    return Question(
        kind=OUTCOME_UNKNOWN,
        agent=known.agent,
        tool=known.tool,
        call_id=known.call_id,
        call_key=known.call_key,
        arguments=known.arguments,
        details={"segment": known.segment, "attempt": known.attempt, "started_at": _iso(known.started_at)},
        error=OutcomeUnknownError(
            f"The call {known.call_id!r} of {known.tool!r} was started, and its process died before it was recorded."
        ),
        is_fatal=is_fatal,
    )


def _iso(moment: datetime | None) -> str:
    return moment.isoformat() if moment is not None else ""
