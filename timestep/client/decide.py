"""The public verbs on what runs wait for: `approve`, `reject`, `answer`, `settle`, `raise_limits`, and two that look.

They work in any process that reaches the database; nothing is launched, no SDK is loaded.
"""

from __future__ import annotations

from typing import Any

from timestep import home_loop
from timestep.client import approvals
from timestep.client.approvals import Decision, Outcome
from timestep.client.connector import Connector
from timestep.records import Approval, RunLimits
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database


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
    made = approvals.approval(by=by, always=always, arguments_digest=arguments_digest)
    return await _decide(database, made, run_id, call_id, approval_id)


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
    made = approvals.rejection(by=by, reason=reason, always=always, arguments_digest=arguments_digest)
    return await _decide(database, made, run_id, call_id, approval_id)


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
    return await _decide(database, approvals.answer_to_question(text, by=by), run_id, call_id, approval_id)


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
    return await _decide(database, approvals.settlement(outcome, by=by, result=result), run_id, call_id, approval_id)


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
    return await _decide(database, approvals.higher_limits(limits, by=by), run_id, None, approval_id)


async def list_approvals(
    run_id: str | None = None,
    *,
    is_waiting: bool = True,
    limit: int = 100,
    database: Database | None = None,
) -> list[Approval]:
    """Return what runs wait for, the oldest first; with `is_waiting` false also what was decided."""
    connector = await _connector(database)
    return await connector.run(approvals.list_approvals, run_id, is_waiting=is_waiting, limit=limit)


async def get_approval(approval_id: str, *, database: Database | None = None) -> Approval:
    """Return one approval.

    Raises:
        ApprovalNotFoundError: there is none of that id.
    """
    return await (await _connector(database)).run(approvals.get_approval, approval_id)


async def _decide(
    database: Database | None, decision: Decision, run_id: str, call_id: str | None, approval_id: str | None
) -> Approval:
    home_loop.enter()
    connector = await _connector(database)
    return await connector.run(approvals.decide_in_run, decision, run_id, call_id, approval_id)


async def _connector(database: Database | None) -> Connector:
    return Connector(database or await open_current_database())
