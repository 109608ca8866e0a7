"""Go on from the RunState of a stored run: its decisions become those of the rows, and the caller has the next segment.

A snapshot resumes once. Whose resume failed, or whose process died, may resume it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from typing import assert_never

import sqlalchemy as sa
from agents import RunState

from timestep.client import runs
from timestep.client.runs import digest_of
from timestep.durable.process.engine import engine
from timestep.durable.states.decisions import StateDecision, decisions_of_state
from timestep.durable.states.origin import Given, Origin
from timestep.errors import (
    ApprovalAlreadyDecided,
    ApprovalChangedError,
    InvalidInputError,
    RunNotFoundError,
    RunStateError,
    SnapshotAlreadyResumed,
    SnapshotMismatchError,
)
from timestep.records import Approval, RunRequest
from timestep.store import approvals as store
from timestep.store.executors import list_live_executors
from timestep.store.queues import find_place
from timestep.store.run_states import (
    already_resumed,
    check_unclaimed,
    claim_snapshot,
    find_snapshot,
    latest_of_run,
)
from timestep.store.runs import StoredRun, find_stored_run, get_stored_run, mark_claimed
from timestep.store.segments import enqueue_segment
from timestep.words import kind_of_approval

DECIDED_BY = "program"
"""Who decided, where a program decides on a RunState."""

_resuming: set[tuple[str, int]] = set()
"""Run and segment, or "" and id, of the snapshots that callers in this process go on from now."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuation:
    """How a run goes on. `starts` is the segment that the caller starts; None when there is none to start."""

    run_id: str
    agent: str
    starts: int | None = None
    is_failed: bool = False


def continue_run(given: Given, *, agent: str, is_queued: bool = False) -> Continuation:
    """Decide what the state decides, and claim its run's next segment; blocks.

    With `is_queued` the segment is enqueued, and the caller starts nothing. May be repeated.

    Raises:
        RunNotFoundError: its run is not in this database.
        RunStateError: the run was cancelled.
        SnapshotAlreadyResumed: somebody goes on from it, or has.
        SnapshotMismatchError: the run is one of another agent.
        ApprovalAlreadyDecided: somebody decided otherwise than the state does.
        ApprovalChangedError: the state's arguments are not those of the run.
    """
    database, origin = engine().database, given.origin
    assert isinstance(given.input, RunState)
    assert origin is not None
    decisions = decisions_of_state(given.input)
    going_on = database.run_sync(_continue, origin, decisions, agent=agent, is_queued=is_queued)
    if going_on.is_failed:  # the resume ended in an exception: it is tried again from a copy of its journal
        runs.resume_run(engine().connector, going_on.run_id)
        if database.run_sync(get_stored_run, going_on.run_id).run.status == "interrupted":  # it asks again
            going_on = database.run_sync(_continue, origin, decisions, agent=agent, is_queued=is_queued)
    return going_on


@contextlib.contextmanager
def resuming(origin: Origin) -> Generator[None]:
    """Hold a snapshot while a caller goes on from it; a second one in the same process is refused."""
    key = (origin.run_id or "", (origin.segment if origin.run_id else origin.snapshot_id) or 0)
    if key in _resuming:
        raise _already_resumed(*key) if origin.run_id else already_resumed(None, key[1])
    _resuming.add(key)
    try:
        yield
    finally:
        _resuming.discard(key)


def run_left_with_snapshot(connection: sa.Connection, request: RunRequest) -> str | None:
    """Return the run that has gone on from a request's snapshot for the same work and was left by its caller.

    None when the snapshot is free, or the request's own: a program that is started again after a crash finds the run
    that it has started before.

    Raises:
        SnapshotAlreadyResumed: another run has gone on from it.
    """
    snapshot_id = request.resumes_snapshot or 0
    try:
        check_unclaimed(connection, snapshot_id, by=request.run_id)
    except SnapshotAlreadyResumed:
        snapshot = find_snapshot(connection, snapshot_id)
        stored = find_stored_run(connection, (snapshot.resumed_by if snapshot is not None else None) or "")
        if stored is None or stored.input_digest != digest_of(request) or not _was_left(connection, stored):
            raise
        return stored.run.run_id
    return None


def _was_left(connection: sa.Connection, stored: StoredRun) -> bool:
    """Whether the caller that started a run is gone: its segment was started again, or its process died."""
    return stored.attempt > 1 or (stored.run.status in ("queued", "running") and _is_left(connection, stored))


def _continue(
    connection: sa.Connection,
    origin: Origin,
    decisions: Sequence[StateDecision],
    *,
    agent: str,
    is_queued: bool,
) -> Continuation:
    run_id, segment = origin.run_id or "", origin.segment or 0
    stored = _run_of(connection, run_id, agent)
    run = stored.run
    newest = latest_of_run(connection, run_id)
    if newest is None or newest.id is None or newest.segment != segment:
        raise _already_resumed(run_id, segment)
    going_on = Continuation(run_id=run_id, agent=run.agent)
    match run.status:
        case "succeeded":
            return going_on
        case "failed":
            return dataclasses.replace(going_on, is_failed=True)
        case "cancelled":
            raise RunStateError(
                f"The run {run_id!r} was cancelled.", hint=f"Let it wait again with `timestep runs resume {run_id}`."
            )
        case "interrupted" if stored.closed_segment < run.segment:
            raise RunStateError(
                f"The run {run_id!r} is parked ({run.reason}).",
                hint=f"Mend what parked it, then run `timestep runs resume {run_id}`.",
            )
        case "interrupted":
            if not _decide(connection, run_id, segment, decisions):
                return going_on  # it still waits
            claim_snapshot(connection, newest.id, resumed_by=run_id)
            return _start_next(connection, going_on, segment + 1, is_queued=is_queued)
        case "queued" | "running":
            is_first = claim_snapshot(connection, newest.id, resumed_by=run_id)
            if not is_first and not _is_left(connection, stored):
                raise _already_resumed(run_id, segment)
            is_next = run.segment == segment + 1  # a later one goes on from a copy of a journal, which others make
            return dataclasses.replace(going_on, starts=run.segment if is_next and not is_queued else None)
        case _:
            assert_never(run.status)


def _run_of(connection: sa.Connection, run_id: str, agent: str) -> StoredRun:
    stored = find_stored_run(connection, run_id, for_update=True)
    if stored is None:
        raise RunNotFoundError(f"The run {run_id!r} of this state is not in this database.")
    if stored.run.agent != agent:
        raise SnapshotMismatchError(f"The state belongs to a run of the agent {stored.run.agent!r}, not of {agent!r}.")
    return stored


def _start_next(connection: sa.Connection, going_on: Continuation, number: int, *, is_queued: bool) -> Continuation:
    place = find_place(connection, going_on.run_id)
    if is_queued or (place is not None and place.is_waiting):  # its turn in its session enqueues it
        enqueue_segment(connection, going_on.run_id, number)
        return going_on
    mark_claimed(connection, going_on.run_id, executor_id=engine().executor_id)
    return dataclasses.replace(going_on, starts=number)


def _decide(connection: sa.Connection, run_id: str, segment: int, decisions: Sequence[StateDecision]) -> bool:
    """Bring the rows to what the state decides; return whether nothing is open any more."""
    asked = store.approvals_of_segment(connection, run_id, segment)
    if len(asked) != len(decisions):
        raise SnapshotMismatchError(
            f"The state has {len(decisions)} interruptions, the run {run_id!r} waits for {len(asked)} decisions."
        )
    pairs = list(zip(asked, decisions, strict=True))
    for row, wanted in sorted(pairs, key=lambda pair: pair[1].always):  # one for all comes after those about one
        if wanted.digest != row.arguments_digest:
            raise ApprovalChangedError(
                f"The call {row.call_id!r} of {row.tool!r} in the state has not the arguments of that of {run_id!r}."
            )
        if wanted.status != "open":
            _decide_one(connection, row.id, wanted)
    return all(row.status != "open" for row in store.approvals_of_segment(connection, run_id, segment))


def _decide_one(connection: sa.Connection, approval_id: str, wanted: StateDecision) -> None:
    row = store.find_approval(connection, approval_id)
    assert row is not None
    if row.status == "open":
        if _is_answered(row) and wanted.status == "approved":
            raise InvalidInputError(
                f"The call {row.call_id!r} of {row.tool!r} asks a question; it cannot be approved.",
                hint="Answer it with `answer(run_id, text, by=...)`, or `state.reject(..., rejection_message=answer)`.",
            )
        store.decide(
            connection,
            row.id,
            wanted.status,
            decided_by=DECIDED_BY,
            digest=wanted.digest,
            always=wanted.always,
            reason=wanted.reason,
            enqueue=False,
        )
    elif not _agrees(row, wanted):
        raise ApprovalAlreadyDecided(
            f"The approval {row.id} of run {row.run_id!r} was {row.status} by {row.decided_by!r} at {row.decided_at}.",
            approval_id=row.id,
            status=row.status,
            decided_by=row.decided_by,
            decided_at=str(row.decided_at),
        )


def _agrees(row: Approval, wanted: StateDecision) -> bool:
    return row.status == wanted.status or (_is_answered(row) and row.status == "answered")


def _is_answered(row: Approval) -> bool:
    """Whether the row takes an answer, which a state can only hold as a rejection."""
    return kind_of_approval(row.kind).decision == "answered"


def _is_left(connection: sa.Connection, stored: StoredRun) -> bool:
    """Whether nobody waits for the segment that somebody has claimed: its process died, or was started again."""
    owner = stored.run.executor_id
    return owner == engine().executor_id or owner not in {each.id for each in list_live_executors(connection)}


def _already_resumed(run_id: str, segment: int) -> SnapshotAlreadyResumed:
    return SnapshotAlreadyResumed(
        f"The run {run_id!r} has gone on from the state of its segment {segment}.",
        hint="Wait for it with `wait_run(run_id)`, load the newest state, or pass branch=True to start another run.",
    )
