"""Decisions between the rows of `approvals` and the SDK's RunState: from rows to a state, and from a state to rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents import ModelBehaviorError, RunState
from agents.items import ToolApprovalItem

from timestep.durable.seams import run_state
from timestep.errors import ApprovalChangedError, SnapshotMismatchError
from timestep.records import Approval
from timestep.store.json_text import storable_text
from timestep.words import ApprovalStatus


@dataclass(frozen=True, kw_only=True)
class StateDecision:
    """What a RunState says about one of its interruptions; `status` is `open` when nothing was decided."""

    call_id: str
    digest: str
    status: ApprovalStatus
    always: bool = False
    reason: str | None = None


def digest_of_arguments(arguments: str) -> str:
    """Return the SHA-256 by which a decision is bound to the arguments that were shown."""
    return hashlib.sha256(arguments.encode(errors="surrogatepass")).hexdigest()


def call_id_of(item: Any) -> str:
    """Return the call id of an interruption, as it is stored."""
    raw = item.raw_item
    value = raw.get("call_id") or raw.get("id") if isinstance(raw, dict) else getattr(raw, "call_id", None)
    return storable_text(str(value or ""))


def apply_decisions(state: RunState[Any], decisions: Sequence[Approval]) -> None:
    """Approve and reject the interruptions of a state as people have decided.

    Raises:
        SnapshotMismatchError: the interruptions are not those that were decided, or one is still open.
    """
    items = state.get_interruptions()
    if len(items) != len(decisions):
        raise SnapshotMismatchError(f"The snapshot waits for {len(items)} decisions, {len(decisions)} were asked for.")
    pairs = list(zip(items, sorted(decisions, key=lambda each: each.place), strict=True))
    for item, decision in pairs:
        if (
            call_id_of(item) != decision.call_id
            or digest_of_arguments(item.arguments or "") != decision.arguments_digest
        ):
            raise SnapshotMismatchError(
                f"The call {decision.call_id!r} of {decision.tool!r} in the snapshot has other arguments than those "
                "that were decided."
            )
    for item, decision in sorted(pairs, key=lambda pair: not pair[1].is_sticky):  # one about all first: the others hold
        _apply(state, item, decision)


def decisions_of_state(state: RunState[Any]) -> list[StateDecision]:
    """Return what a program has decided on a state, for each interruption in its order.

    Raises:
        ApprovalChangedError: a call was changed after the decision about it.
    """
    items = state.get_interruptions()
    decisions = [_decision_about(state, item) for item in items]
    are_sticky = run_state.are_for_the_whole_run(decisions)
    return [
        StateDecision(
            call_id=call_id_of(item),
            digest=digest_of_arguments(item.arguments or ""),
            status=_status_of(decision),
            always=is_sticky,
            reason=decision.reason,
        )
        for item, decision, is_sticky in zip(items, decisions, are_sticky, strict=True)
    ]


def _decision_about(state: RunState[Any], item: ToolApprovalItem) -> run_state.Decision:
    try:
        return run_state.decision_about(state, item)
    except ModelBehaviorError as error:  # the SDK knows the call with other arguments
        raise ApprovalChangedError(
            f"The call {call_id_of(item)!r} of {item.name!r} was changed after it was decided: {error}"
        ) from error


def _status_of(decision: run_state.Decision) -> ApprovalStatus:
    return "open" if decision.is_approved is None else "approved" if decision.is_approved else "rejected"


def _apply(state: RunState[Any], item: Any, decision: Approval) -> None:
    match decision.status:
        case "approved":
            state.approve(item, always_approve=decision.is_sticky)
        case "rejected":
            state.reject(item, always_reject=decision.is_sticky, rejection_message=decision.reason)
        case "answered":  # the answer stands in the place of the tool's result; its body does not run
            state.reject(item, rejection_message=_text(decision.answer))
        case "expired":
            state.reject(item, rejection_message=f"Nobody decided about this call of {decision.tool} in time.")
        case "open":
            raise SnapshotMismatchError(f"The call {decision.call_id!r} of {decision.tool!r} is not decided.")


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else str(answer)
