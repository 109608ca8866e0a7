"""The limits of a run, checked inside each `model_turn` step before the model is asked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from timestep.durable.journal.halt import Halted, Question
from timestep.durable.journal.scope import Scope, Segment
from timestep.errors import LimitReachedError
from timestep.records import LIMITS, Approval, RunLimits
from timestep.store.segments import Used
from timestep.words import LIMIT


def check_limits(scope: Scope, *, agent: str) -> dict[str, Any] | None:
    """Return what the run had used before a model call, to be recorded with it; None when the run has no limits.

    Raises:
        Halted: a limit is reached.
    """
    segment = scope.segment
    if segment.limits is None:
        return None
    used = used_by(segment)
    values = {
        "max_turns": used.turns,
        "max_tool_calls": used.tool_calls,
        "max_tokens": used.tokens,
        "max_cost_micro_usd": used.cost_micro_usd,
        "max_seconds": round(used.seconds, 3),
    }
    for name in LIMITS:
        limit, value = getattr(segment.limits, name), values[name]
        unpriced = used.unpriced if name == "max_cost_micro_usd" and not _was_raised(segment, name) else None
        if limit is None or (value < limit and unpriced is None):
            continue
        message = f"The run has reached its limit {name}={limit}: it has used {value}."
        if unpriced is not None:
            message = f"The price of {unpriced or 'a model'} is not known, so {name}={limit} cannot be kept."
        details = {"limit": name, "value": limit, "used": value, "message": message}
        fails = segment.limits.on_limit == "fail"
        error = LimitReachedError(message)
        raise Halted(Question(kind=LIMIT, agent=agent, call_key=name, details=details, error=error, is_fatal=fails))
    return values


def _seconds_before(segment: Segment) -> list[float]:
    """Return what a run had used at the turns that earlier attempts of its segment have finished."""
    turns = [turn["envelope"] for turn in segment.record.model_turns]
    return [
        turn["used"]["max_seconds"] + turn["seconds"]
        for turn in turns
        if turn.get("used") and turn.get("attempt", 1) < segment.attempt
    ]


def _was_raised(segment: Segment, name: str) -> bool:
    """Whether a person has raised this limit, and so knows what its counting leaves out."""
    return any(each.kind == LIMIT and (each.details or {}).get("limit") == name for each in segment.decisions)


def used_by(segment: Segment) -> Used:
    """Return what a run has used up to now: before the segment, and in its recorded steps."""
    before, turns = segment.used, segment.record.model_turns
    answers = [*turns, *segment.record.refused_turns]
    costs = [answer["envelope"].get("cost_micro_usd") for answer in answers]
    unpriced = next(
        (answer["envelope"].get("model") or "" for answer, cost in zip(answers, costs, strict=True) if cost is None),
        None,
    )
    return Used(
        turns=before.turns + len(turns),
        tool_calls=before.tool_calls + len(segment.record.tool_calls),
        tokens=before.tokens + sum(answer["usage"].input_tokens + answer["usage"].output_tokens for answer in answers),
        cost_micro_usd=before.cost_micro_usd + sum(cost or 0 for cost in costs),
        unpriced=before.unpriced if before.unpriced is not None else unpriced,
        seconds=max([before.seconds, *_seconds_before(segment)]) + time.monotonic() - segment.started_at,
    )


def limits_with(limits: RunLimits | None, decisions: Sequence[Approval]) -> RunLimits | None:
    """Return the limits of a run after what people have raised."""
    if limits is None:
        return None
    for decision in decisions:
        if decision.kind == LIMIT and decision.status == "answered":
            limits = dataclasses.replace(limits, **decision.answer["limits"])
    return limits
