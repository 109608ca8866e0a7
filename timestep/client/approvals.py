"""What runs wait for, and the decisions about it, from any process that reaches the database.

A decision is one call of the SQL function `timestep.decide`, the same for every language. The first one wins. When the
last open question of a run is decided, its next segment is enqueued in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import sqlalchemy as sa

from timestep.client.asked import kind_text, wish
from timestep.client.connector import Connector
from timestep.client.runs import named_run
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
from timestep.store.json_text import dump_json
from timestep.store.runs import get_stored_run
from timestep.words import ApprovalKind, ApprovalStatus, kind_of_approval, kinds_decided_by

Outcome = Literal["happened", "did_not_happen", "fail"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What somebody decides: made by `approval`, `rejection`, `answer_to_question`, `settlement` or `higher_limits`.

    `kinds` are those of the questions that it may decide, () for all. Without `arguments_digest` it is about the
    arguments that were read with the question.
    """

    status: ApprovalStatus
    by: str
    kinds: Sequence[ApprovalKind] = ()
    always: bool = False
    reason: str | None = None
    answer: Any = None
    arguments_digest: str | None = None

    def __post_init__(self) -> None:
        """Refuse a decision by nobody.

        Raises:
            InvalidInputError: `by` is no text, or empty.
        """
        if not isinstance(self.by, str) or not self.by.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(
                f"Who decides is text, not {self.by!r}.", hint="Pass by='alice', a name or an address."
            )


def approval(*, by: str, always: bool = False, arguments_digest: str | None = None) -> Decision:
    """Return the decision that lets a call run; `always` lets every further one of its tool run, too."""
    return Decision(
        status="approved", kinds=kinds_decided_by("approve"), by=by, always=always, arguments_digest=arguments_digest
    )


def rejection(
    *, by: str, reason: str | None = None, always: bool = False, arguments_digest: str | None = None
) -> Decision:
    """Return the decision that refuses whatever waits."""
    return Decision(status="rejected", by=by, reason=reason, always=always, arguments_digest=arguments_digest)


def answer_to_question(text: str, *, by: str) -> Decision:
    """Return the decision that answers a question of the model.

    Raises:
        InvalidInputError: it is no text.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"An answer is text, not {type(text).__name__}: {text!r}.")
    return Decision(status="answered", kinds=kinds_decided_by("answer"), by=by, answer=text)


def settlement(outcome: Outcome, *, by: str, result: Any = None) -> Decision:
    """Return the decision that says what became of a call whose outcome is unknown; see `timestep.settle`.

    Raises:
        InvalidInputError: another outcome, or a result that is not JSON-able.
    """
    if outcome not in ("happened", "did_not_happen", "fail"):
        raise InvalidInputError(f"An outcome is 'happened', 'did_not_happen' or 'fail', not {outcome!r}.")
    dump_json(result)
    found = {"outcome": outcome, "result": result} if outcome == "happened" else {"outcome": outcome}
    status: ApprovalStatus = "rejected" if outcome == "fail" else "answered"
    return Decision(status=status, kinds=kinds_decided_by("settle"), by=by, answer=found)


def higher_limits(limits: RunLimits, *, by: str) -> Decision:
    """Return the decision that lets a run go on which has reached a limit; limits that are left out stay."""
    raised = {name: getattr(limits, name) for name in LIMITS if getattr(limits, name) is not None}
    return Decision(status="answered", kinds=kinds_decided_by("raise_limits"), by=by, answer={"limits": raised})


def list_approvals(
    connector: Connector, run_id: str | None = None, *, is_waiting: bool = True, limit: int = 100
) -> list[Approval]:
    """Return what runs wait for, the oldest first; with `is_waiting` false also what was decided."""
    return connector.database.run_sync(store.list_approvals, run_id=run_id, is_waiting=is_waiting, limit=limit)


def open_approvals(connector: Connector, run_id: str) -> list[Approval]:
    """Return what the newest segment of a run asks, in the order of the questions; without what was decided."""
    return connector.database.run_sync(store.open_approvals, run_id)


def approvals_of_segment(connector: Connector, run_id: str, segment: int) -> list[Approval]:
    """Return what a segment ended with, in the order of the questions, decided or not."""
    return connector.database.run_sync(store.approvals_of_segment, run_id, segment)


def get_approval(connector: Connector, approval_id: str) -> Approval:
    """Return one approval.

    Raises:
        ApprovalNotFoundError: there is none of that id.
    """
    return connector.database.run_sync(_get, approval_id)


def find_asked(
    connector: Connector, text: str, call_id: str | None = None, *, kinds: Sequence[ApprovalKind] = ()
) -> Approval:
    """Return the approval that a person means by its id, or by a run and, if need be, a call.

    Either id may be cut to a prefix that no other one has. What was decided is found by its id or its call, too. Of
    several open ones of a run it is the one of `kinds`.

    Raises:
        ApprovalNotFoundError: there is none, or the prefix is not of one alone.
        RunNotFoundError: there is no such run.
        AmbiguousCallError: more than one is open.
    """
    return connector.database.run_sync(_find_named, text, call_id, kinds)


def decide_in_run(
    connector: Connector, decision: Decision, run_id: str, call_id: str | None = None, approval_id: str | None = None
) -> Approval:
    """Decide what a program means by whole ids: of a run and its approval or, if need be, a call.

    Raises:
        ApprovalNotFoundError: nothing of that id, or of that kind, waits.
        RunNotFoundError: there is no such run.
        AmbiguousCallError: more than one is open.
        ApprovalError, InvalidInputError: as in `decide`.
    """
    if approval_id is not None:
        asked = connector.database.run_sync(_find_of_run, run_id, approval_id)
    else:
        asked = connector.database.run_sync(_find_open, run_id, call_id, decision.kinds)
        if call_id is None and decision.kinds and asked.kind not in decision.kinds:
            raise ApprovalNotFoundError(
                f"The run {run_id!r} waits for no decision of that kind, but for {wish(asked)}."
            )
    return decide(connector, asked, decision)


def decide(connector: Connector, asked: Approval, decision: Decision) -> Approval:
    """Decide what was read as `asked`, and return it as it is then.

    Raises:
        InvalidInputError: it takes another kind of decision, none of the choices is given, or a limit is not raised.
        ApprovalAlreadyDecided: somebody was first; the error says who and when.
        ApprovalExpiredError: nobody decided in time.
        ApprovalNotWaitingError: the run does not wait: it was cancelled, or has ended.
        ApprovalChangedError: the arguments are not those that were read.
    """
    _check_kind(asked, decision.kinds if asked.status == "open" else ())
    if kind_of_approval(asked.kind).answer == "limits" and decision.status == "answered":
        _check_raised(asked, decision.answer["limits"])
    return connector.database.run_sync(_decide, asked, decision)


def expire_approvals(connector: Connector) -> int:
    """Let what nobody has decided in time expire; return how many. Harmless when others do it too."""
    expired = connector.database.run_sync(store.expired_approvals)
    for approval_id in expired:
        connector.database.run_sync(store.decide, approval_id, "expired", decided_by="")
    return len(expired)


def _get(connection: sa.Connection, approval_id: str) -> Approval:
    found = store.find_approval(connection, approval_id)
    if found is None:
        raise ApprovalNotFoundError(f"There is no approval {approval_id!r}.")
    return found


def _find_named(connection: sa.Connection, text: str, call_id: str | None, kinds: Sequence[ApprovalKind]) -> Approval:
    if call_id is not None:
        return _find_open(connection, named_run(connection, text), call_id, kinds)
    if not text.strip():
        raise ApprovalNotFoundError(f"There is no approval {text!r}.")
    approvals, runs = store.find_named(connection, text)
    if not approvals and not runs:
        raise ApprovalNotFoundError(f"There is no approval or run {text!r}.")
    if approvals and len(approvals) + len(runs) > 1:
        names = approvals[:3] + [f"run {run_id}" for run_id in runs[:1]]
        raise ApprovalNotFoundError(
            f"More than one approval or run begins with {text!r}: {', '.join(names)}.", hint="Type more of the id."
        )
    if approvals:
        return _get(connection, approvals[0])
    return _find_open(connection, runs[0] if len(runs) == 1 else named_run(connection, text), None, kinds)


def _find_of_run(connection: sa.Connection, run_id: str, approval_id: str) -> Approval:
    found = store.find_approval(connection, approval_id)
    if found is None or found.run_id != run_id:
        get_stored_run(connection, run_id)
        raise ApprovalNotFoundError(f"The run {run_id!r} has no approval {approval_id!r}.")
    return found


def _find_open(connection: sa.Connection, run_id: str, call_id: str | None, kinds: Sequence[ApprovalKind]) -> Approval:
    asked = [each for each in store.open_approvals(connection, run_id) if call_id is None or each.call_id == call_id]
    fitting = [each for each in asked if not kinds or each.kind in kinds] or asked[:1]
    if len(fitting) > 1:
        named = "; ".join(f"{each.id} {wish(each)}" for each in fitting)
        where = f"has {len(fitting)} open calls {call_id!r}" if call_id else f"waits for {len(fitting)} decisions"
        raise AmbiguousCallError(f"The run {run_id!r} {where}: {named}.")
    if fitting:
        return fitting[0]
    newest = store.newest_of_call(connection, run_id, call_id) if call_id is not None else None
    if newest is not None:
        return newest
    run = get_stored_run(connection, run_id).run
    what = f"has no call {call_id!r} that waits" if call_id else "waits for no decision"
    raise ApprovalNotFoundError(
        f"The run {run_id!r} {what}: it is {run.status}.", hint=f"Look at it with `timestep runs show {run_id}`."
    )


def _decide(connection: sa.Connection, asked: Approval, decision: Decision) -> Approval:
    made = store.decide(
        connection,
        asked.id,
        decision.status,
        decided_by=decision.by,
        digest=decision.arguments_digest if decision.arguments_digest is not None else asked.arguments_digest,
        always=decision.always,
        reason=decision.reason,
        answer=decision.answer,
    )
    if made.outcome == "expired":
        connection.commit()  # the expiry itself holds
    _raise_refused(made, asked, answer=decision.answer)
    return _get(connection, asked.id)


def _check_kind(asked: Approval, kinds: Sequence[ApprovalKind]) -> None:
    if kinds and asked.kind not in kinds:
        raise InvalidInputError(
            f"The {kind_text(asked)} {asked.id} of run {asked.run_id!r} takes another kind of decision.",
            hint=f"Use `{kind_of_approval(asked.kind).verb}`, or `reject`.",
        )


def _check_raised(asked: Approval, raised: dict[str, Any]) -> None:
    name, used = asked.details["limit"], asked.details["used"]
    if raised.get(name) is None or raised[name] <= used:
        raise InvalidInputError(
            f"The run {asked.run_id!r} has reached {name}={asked.details['value']} and used {used}; "
            f"the new limit is {raised.get(name)}.",
            hint=f"Write raise_limits(run_id, RunLimits({name}=...), by=...) with more than {used}.",
        )


def _raise_refused(made: store.Decided, asked: Approval, *, answer: Any) -> None:
    name = f"The {kind_text(asked)} {asked.id} of run {asked.run_id!r}"
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
