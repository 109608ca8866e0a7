"""Decide what runs wait for, from any process that reaches the database; nothing is launched, no SDK is loaded.

A decision is one call of the SQL function `timestep.decide`, the same for every language. The first one wins. When the
last open question of a run is decided, its next segment is enqueued in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, assert_never

import sqlalchemy as sa

from timestep.errors import (
    AmbiguousCallError,
    ApprovalAlreadyDecided,
    ApprovalChangedError,
    ApprovalExpiredError,
    ApprovalNotFoundError,
    ApprovalNotWaitingError,
    InvalidInputError,
)
from timestep.records import LIMITS, Approval, RunLimits
from timestep.store import approvals as store
from timestep.store.connection import Database
from timestep.store.json_text import dump_json
from timestep.store.process_database import open_current_database
from timestep.store.runs import get_stored_run
from timestep.words import ApprovalKind, ApprovalStatus, kind_of_approval, kinds_decided_by

Outcome = Literal["happened", "did_not_happen", "fail"]


async def approve(
    run_id: str,
    call_id: str | None = None,
    *,
    by: str,
    always: bool = False,
    approval_id: str | None = None,
    arguments_digest: str | None = None,
    database: Database | None = None,
) -> Approval:
    """Let a call that waits run, and return the decision.

    Args:
        call_id: The call of the run; may be left out when only one waits.
        by: Who decides; kept with the decision.
        always: Approve every further call of this tool by this agent in this run too, the open ones included.
        approval_id: The approval itself, instead of the call id.
        arguments_digest: SHA-256 of the arguments that were shown; another one is refused. That of the row when absent.
        database: A database of the caller's; that of the process when absent.

    Raises:
        ApprovalNotFoundError: nothing of that id waits.
        RunNotFoundError: there is no such run.
        AmbiguousCallError: more than one open call of the run has this id.
        ApprovalAlreadyDecided: somebody was first; the error says who and when.
        ApprovalExpiredError: nobody decided in time.
        ApprovalNotWaitingError: the run does not wait: it was cancelled, or has ended.
        ApprovalChangedError: the arguments are not those that were shown.
    """
    return await _decide(
        run_id,
        call_id,
        "approved",
        kinds=kinds_decided_by("approve"),
        by=by,
        always=always,
        approval_id=approval_id,
        digest=arguments_digest,
        database=database,
    )


async def reject(
    run_id: str,
    call_id: str | None = None,
    *,
    by: str,
    reason: str | None = None,
    always: bool = False,
    approval_id: str | None = None,
    arguments_digest: str | None = None,
    database: Database | None = None,
) -> Approval:
    """Refuse what waits, and return the decision.

    A call never runs, and the model sees the reason; so it does after a question. A run that waits for a limit or for
    an unknown outcome fails. Parameters and errors as in `approve`.
    """
    return await _decide(
        run_id,
        call_id,
        "rejected",
        kinds=(),
        by=by,
        always=always,
        reason=reason,
        approval_id=approval_id,
        digest=arguments_digest,
        database=database,
    )


async def answer(
    run_id: str,
    text: str,
    call_id: str | None = None,
    *,
    by: str,
    approval_id: str | None = None,
    database: Database | None = None,
) -> Approval:
    """Answer a question that the model asked with `ask_user`; the model gets the text as the tool's result.

    Raises:
        InvalidInputError: the question has choices, and the text is none of them.
        ApprovalError: as in `approve`.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"An answer is text, not {type(text).__name__}: {text!r}.")
    return await _decide(
        run_id,
        call_id,
        "answered",
        kinds=kinds_decided_by("answer"),
        by=by,
        answer=text,
        approval_id=approval_id,
        database=database,
    )


async def settle(
    run_id: str,
    call_id: str | None = None,
    *,
    by: str,
    outcome: Outcome,
    result: Any = None,
    approval_id: str | None = None,
    database: Database | None = None,
) -> Approval:
    """Say what became of a call whose process died before it was recorded (`tool_policy(..., on_crash="ask")`).

    Args:
        outcome: `happened`: `result` is what the tool returned, and it does not run again. `did_not_happen`: it runs.
            `fail`: the run fails.
        result: JSON-able.

    Raises:
        InvalidInputError: another outcome, or a result that is not JSON-able.
        ApprovalError: as in `approve`.
    """
    if outcome not in ("happened", "did_not_happen", "fail"):
        raise InvalidInputError(f"An outcome is 'happened', 'did_not_happen' or 'fail', not {outcome!r}.")
    dump_json(result)
    found = {"outcome": outcome, "result": result} if outcome == "happened" else {"outcome": outcome}
    return await _decide(
        run_id,
        call_id,
        "rejected" if outcome == "fail" else "answered",
        kinds=kinds_decided_by("settle"),
        by=by,
        answer=found,
        approval_id=approval_id,
        database=database,
    )


async def raise_limits(
    run_id: str,
    limits: RunLimits,
    *,
    by: str,
    approval_id: str | None = None,
    database: Database | None = None,
) -> Approval:
    """Let a run that reached a limit go on with higher ones; what `limits` leaves out stays as it is.

    Raises:
        InvalidInputError: the limit that was reached is not raised.
        ApprovalError: as in `approve`.
    """
    raised = {name: getattr(limits, name) for name in LIMITS if getattr(limits, name) is not None}
    return await _decide(
        run_id,
        None,
        "answered",
        kinds=kinds_decided_by("raise_limits"),
        by=by,
        answer={"limits": raised},
        approval_id=approval_id,
        database=database,
    )


async def list_approvals(
    run_id: str | None = None,
    *,
    is_waiting: bool = True,
    limit: int = 100,
    database: Database | None = None,
) -> list[Approval]:
    """Return what runs wait for, the oldest first; with `is_waiting` false also what was decided."""
    database = database or await open_current_database()
    return await database.run(store.list_approvals, run_id=run_id, is_waiting=is_waiting, limit=limit)


async def get_approval(approval_id: str, *, database: Database | None = None) -> Approval:
    """Return one approval.

    Raises:
        ApprovalNotFoundError: there is none of that id.
    """
    database = database or await open_current_database()
    found = await database.run(store.find_approval, approval_id)
    if found is None:
        raise ApprovalNotFoundError(f"There is no approval {approval_id!r}.")
    return found


def expire_approvals(database: Database) -> int:
    """Let what nobody has decided in time expire; return how many. Harmless when others do it too; blocks."""
    expired = database.run_sync(store.expired_approvals)
    for approval_id in expired:
        database.run_sync(store.decide, approval_id, "expired", decided_by="")
    return len(expired)


async def _decide(
    run_id: str,
    call_id: str | None,
    decision: ApprovalStatus,
    *,
    kinds: Sequence[ApprovalKind],
    by: str,
    always: bool = False,
    reason: str | None = None,
    answer: Any = None,
    approval_id: str | None = None,
    digest: str | None = None,
    database: Database | None = None,
) -> Approval:
    if not isinstance(by, str) or not by.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"Who decides is text, not {by!r}.", hint="Pass by='alice', a name or an address.")
    database = database or await open_current_database()
    return await database.run(
        _decide_now,
        run_id,
        call_id,
        decision,
        kinds=kinds,
        by=by,
        always=always,
        reason=reason,
        answer=answer,
        approval_id=approval_id,
        digest=digest,
    )


def _decide_now(
    connection: sa.Connection,
    run_id: str,
    call_id: str | None,
    decision: ApprovalStatus,
    *,
    kinds: Sequence[ApprovalKind],
    by: str,
    always: bool,
    reason: str | None,
    answer: Any,
    approval_id: str | None,
    digest: str | None,
) -> Approval:
    asked = _find(connection, run_id, call_id, approval_id, kinds)
    if kind_of_approval(asked.kind).answer == "limits" and decision == "answered":
        _check_raised(asked, answer["limits"])
    made = store.decide(
        connection,
        asked.id,
        decision,
        decided_by=by,
        digest=digest if digest is not None else asked.arguments_digest,
        always=always,
        reason=reason,
        answer=answer,
    )
    if made.outcome == "expired":
        connection.commit()  # the expiry itself holds
    _raise_refused(made, asked, answer=answer)
    stored = store.find_approval(connection, asked.id)
    assert stored is not None
    return stored


def _find(
    connection: sa.Connection, run_id: str, call_id: str | None, approval_id: str | None, kinds: Sequence[ApprovalKind]
) -> Approval:
    get_stored_run(connection, run_id)
    if approval_id is not None:
        found = store.find_approval(connection, approval_id)
        if found is None or found.run_id != run_id:
            raise ApprovalNotFoundError(f"The run {run_id!r} has no approval {approval_id!r}.")
        _check_kind(found, kinds)
        return found
    asked = [each for each in store.open_approvals(connection, run_id) if call_id in (None, each.call_id)]
    waiting = [each for each in asked if not kinds or each.kind in kinds]
    if len(waiting) > 1:
        ids = ", ".join(each.id for each in waiting)
        what = f"has the call id {call_id!r} in {len(waiting)} open calls" if call_id else f"waits {len(waiting)} times"
        raise AmbiguousCallError(f"The run {run_id!r} {what}: {ids}.")
    if waiting:
        return waiting[0]
    newest = store.newest_of_call(connection, run_id, call_id) if call_id is not None else None
    if newest is not None:
        _check_kind(newest, kinds if newest.status == "open" else ())
        return newest
    what = f"has no call {call_id!r} that waits" if call_id else "waits for nothing of that kind"
    raise ApprovalNotFoundError(f"The run {run_id!r} {what}.")


def _check_kind(found: Approval, kinds: Sequence[ApprovalKind]) -> None:
    if kinds and found.kind not in kinds:
        raise InvalidInputError(
            f"The run {found.run_id!r} waits for another kind of decision there: {found.kind}.",
            hint=f"Use `{kind_of_approval(found.kind).verb}`, or `reject`.",
        )


def _check_raised(asked: Approval, raised: dict[str, Any]) -> None:
    name, used = asked.details["limit"], asked.details["used"]
    if raised.get(name) is None or raised[name] <= used:
        raise InvalidInputError(
            f"The run {asked.run_id!r} has reached {name}={asked.details['value']} and used {used}; "
            f"the new limit is {raised.get(name)}.",
            hint=f"Write raise_limits(run_id, RunLimits({name}=...), by=...) with more than {used}.",
        )


def _raise_refused(made: store.Decision, asked: Approval, *, answer: Any) -> None:
    name = f"The {asked.kind.replace('_', ' ')} {asked.id} of run {asked.run_id!r}"
    match made.outcome:
        case "decided":
            return
        case "already_decided":
            raise ApprovalAlreadyDecided(
                f"{name} was {made.status} by {made.decided_by!r} at {made.decided_at}.",
                approval_id=made.approval_id,
                status=made.status,
                decided_by=made.decided_by,
                decided_at=made.decided_at,
            )
        case "expired":
            raise ApprovalExpiredError(f"{name} expired at {made.decided_at}.")
        case "not_waiting":
            raise ApprovalNotWaitingError(f"{name} does not wait any more: the run is {made.run_status}.")
        case "changed":
            raise ApprovalChangedError(f"{name} has other arguments than those that were shown: {asked.arguments}.")
        case "not_a_choice":
            choices = ", ".join(repr(choice) for choice in made.choices or ())
            raise InvalidInputError(f"The answer {answer!r} is none of the choices.", hint=f"Answer one of {choices}.")
        case "not_allowed":
            _check_kind(asked, kinds_decided_by("approve"))
            raise InvalidInputError(f"{name} is no call that can be approved.")
        case "unknown":
            raise ApprovalNotFoundError(f"{name} is not there.")
        case _:
            assert_never(made.outcome)
