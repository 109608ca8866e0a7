"""Runs: `runs`, one row for each piece of work. `runs.status` is the truth about a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from timestep.errors import RunNotFoundError
from timestep.records import Run, RunLimits, RunRequest, TokenUsage
from timestep.store.connection import one_statement
from timestep.store.tables import approvals, runs
from timestep.words import (
    APPROVAL,
    APPROVAL_EXPIRED,
    FINISHED,
    FOR_EXECUTORS,
    HISTORY_CHANGED,
    KINDS_OF_APPROVAL,
    PARENT_CANCELLED,
    RunStatus,
    read_reason,
)

_AGAIN = {"deduplication_id": sa.case((runs.c.status.in_(tuple(FINISHED)), sa.null()), else_=runs.c.deduplication_id)}
"""What changes with a run that had ended and is not over after all: another may have its deduplication id by now."""

_UNFINISHED = sa.text("""
select id, segment, status from (
  (select id, segment, status from timestep.runs
   where status in ('queued', 'running') and id > :after
     and coalesce(segment_started_at, created_at) < now() - make_interval(secs => :age)
     and not exists (select 1 from timestep.session_queue q where q.run_id = runs.id and q.is_waiting)
   order by id limit :limit)
  union all
  (select id, segment, status from timestep.runs
   where status = 'cancelled' and finished_at > now() - interval '1 hour' and id > :after
   order by id limit :limit)) as found
order by id limit :limit""")
_UNFINISHED_CHILDREN = sa.text("""
with recursive below as (
  select id, status from timestep.runs where parent_run_id = :run_id
  union select child.id, child.status from timestep.runs child join below on child.parent_run_id = below.id)
select id from below where status <> all(:finished) order by id""")


AT_PROVIDER = ("conversation_id", "previous_response_id", "auto_previous_response_id")
"""Fields of a request that say where the model's provider has the history."""


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A row of `runs` with what the engine needs beside the public record."""

    run: Run
    request: RunRequest
    input_digest: str
    agent_hash: str | None
    closed_segment: int
    attempt: int
    session_position: int | None
    session_items_stored: int
    timeout_seconds: float | None
    executed_seconds: float
    deadline_at: datetime | None
    last_agent: str | None
    application_version: str | None
    adopted_from: str | None
    session_place: int | None


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run is, for those who follow it."""

    status: RunStatus
    reason: str | None
    segment: int
    closed_segment: int
    is_streamed: bool


def mark_cancelled(
    connection: sa.Connection, run_id: str, *, reason: str, was: Sequence[RunStatus] | None = None
) -> StoredRun | None:
    """Cancel a run that is not finished; return it as it was, or None when it is finished or cancelled already.

    `was` are the statuses in which it may be, any unfinished one when absent.
    """
    before = find_stored_run(connection, run_id, for_update=True)
    if before is None or before.run.status in FINISHED or (was is not None and before.run.status not in was):
        return None
    executed = runs.c.executed_seconds
    if before.run.status == "running":
        executed = executed + _seconds_since(runs.c.segment_started_at)
    change = {
        "status": "cancelled",
        "reason": reason,
        "finished_at": sa.func.now(),
        "deadline_at": None,
        "executed_seconds": executed,
    }
    connection.execute(sa.update(runs).where(runs.c.id == run_id).values(change))
    return before


def unfinished_children(connection: sa.Connection, run_id: str) -> list[str]:
    """Return the runs that a run has started, and those that they have started, which have not ended."""
    found = connection.execute(_UNFINISHED_CHILDREN, {"run_id": run_id, "finished": list(FINISHED)})
    return list(found.scalars())


def cancelled_children(connection: sa.Connection, run_id: str) -> list[str]:
    """Return the runs that a run has started itself, and that were cancelled with it."""
    query = sa.select(runs.c.id).where(
        runs.c.parent_run_id == run_id, runs.c.status == "cancelled", runs.c.reason == PARENT_CANCELLED
    )
    return list(connection.execute(query).scalars())


def mark_parked(
    connection: sa.Connection,
    run_id: str,
    *,
    reason: str,
    error: dict[str, Any] | None = None,
    was: Sequence[RunStatus] = ("running",),
) -> bool:
    """Interrupt a run whose segment cannot go on here, without closing the segment; `error` says why.

    A run that was adopted from another application version is that version's again.
    """
    change = sa.update(runs).where(runs.c.id == run_id, runs.c.status.in_(was))
    version = sa.func.coalesce(runs.c.adopted_from, runs.c.application_version)
    values = {"status": "interrupted", "reason": reason, "error": error, "adopted_from": None}
    return connection.execute(change.values(application_version=version, **values)).rowcount == 1


def prepare_resume(
    connection: sa.Connection, run_id: str, *, restart_clock: bool = False, max_turns: int | None = None
) -> None:
    """Change the limits of a run before it goes on; `restart_clock` gives it its whole time limit again."""
    change: dict[str, Any] = {"executed_seconds": 0, "deadline_at": None} if restart_clock else {}
    if max_turns is not None:
        options = connection.execute(sa.select(runs.c.options).where(runs.c.id == run_id)).scalar()
        change["options"] = dict(options or {}) | {"max_turns": max_turns}
    if change:
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(change))


def mark_queued(
    connection: sa.Connection, run_id: str, *, was: Sequence[RunStatus], segment: int | None = None
) -> bool:
    """Queue a run again, for its segment to go on or for a new one, without the delay that it may have had.

    False when its status is not in `was`, or the new segment has been started before.
    """
    change: dict[str, Any] = {
        "status": "queued",
        "reason": None,
        "finished_at": None,
        "error": None,
        "start_after": None,
    }
    change |= _AGAIN
    statement = sa.update(runs).where(runs.c.id == run_id, runs.c.status.in_(was))
    if segment is not None:
        change |= {"segment": segment, "attempt": 0}
        statement = statement.where(runs.c.segment < segment)
    return connection.execute(statement.values(change)).rowcount == 1


def mark_waiting(connection: sa.Connection, run_id: str) -> bool:
    """Let a run that was cancelled while it waited for a decision wait again."""
    statement = sa.update(runs).where(runs.c.id == run_id, runs.c.status == "cancelled")
    reasons = {each.word: each.reason for each in KINDS_OF_APPROVAL}
    asked = sa.select(sa.case(reasons, value=approvals.c.kind)).where(
        approvals.c.run_id == runs.c.id, approvals.c.segment == runs.c.segment, approvals.c.status == "open"
    )
    reason = asked.order_by(approvals.c.place).limit(1).scalar_subquery()
    change = {"status": "interrupted", "reason": sa.func.coalesce(reason, APPROVAL), "finished_at": None} | _AGAIN
    return connection.execute(statement.values(change)).rowcount == 1


def has_expired(connection: sa.Connection, stored: StoredRun) -> bool:
    """Whether a failed run waited for a decision that nobody took in time."""
    expired = sa.select(approvals.c.id).where(
        approvals.c.run_id == stored.run.run_id,
        approvals.c.segment == stored.run.segment,
        approvals.c.status == "expired",
    )
    return stored.run.reason == APPROVAL_EXPIRED and connection.execute(expired.limit(1)).first() is not None


def ask_again(connection: sa.Connection, run_id: str) -> bool:
    """Let a run that failed because nobody decided in time wait again, without an end."""
    statement = sa.update(runs).where(runs.c.id == run_id, runs.c.status == "failed", runs.c.reason == APPROVAL_EXPIRED)
    change = {"status": "interrupted", "reason": APPROVAL, "finished_at": None, "error": None} | _AGAIN
    if connection.execute(statement.values(change)).rowcount == 0:
        return False
    expired = sa.update(approvals).where(
        approvals.c.run_id == run_id, approvals.c.segment == runs.c.segment, runs.c.id == run_id,
        approvals.c.status == "expired",
    )  # fmt: skip
    connection.execute(expired.values(status="open", expires_at=None, decided_at=None))
    return True


def mark_claimed(connection: sa.Connection, run_id: str, *, executor_id: str) -> None:
    """Note which executor starts the next segment of a queued run by itself, without a queue."""
    connection.execute(sa.update(runs).where(runs.c.id == run_id).values(executor_id=executor_id))


def mark_failed(connection: sa.Connection, run_id: str, *, reason: str, error: dict[str, Any]) -> bool:
    """End a running or queued run whose workflow ended without closing its segment."""
    statement = sa.update(runs).where(runs.c.id == run_id, runs.c.status.in_(("running", "queued")))
    change = {"status": "failed", "reason": reason, "error": error, "finished_at": sa.func.now()}
    return connection.execute(statement.values(change)).rowcount == 1


@one_statement
def unfinished_segments(
    connection: sa.Connection, *, older_than_seconds: float, after: str = "", limit: int = 1000
) -> list[tuple[str, int, RunStatus]]:
    """Return id, segment and status of running, queued and just cancelled runs, for a look at their workflows.

    Not of those that wait for their session: they may have no workflow. In the order of their ids; `after` is the last
    one of the page before.
    """
    found = connection.execute(_UNFINISHED, {"age": older_than_seconds, "after": after, "limit": limit})
    return [(run_id, segment, status) for run_id, segment, status in found]


@dataclass(frozen=True, kw_only=True)
class WaitingRun:
    """A run that an executor must have or take, with what tells which one can. `version` is that of its last one.

    `code` names the fields of its run configuration that are code.
    """

    run_id: str
    segment: int
    agent: str
    status: RunStatus
    reason: str | None
    queue: str | None
    version: str | None
    code: Sequence[str]


@one_statement
def waiting_runs(connection: sa.Connection, *, after: str = "", limit: int = 1000) -> list[WaitingRun]:
    """Return runs that are queued or running, or are interrupted until an executor fits them.

    In the order of their ids; `after` is the last one of the page before.
    """
    columns = runs.c.id, runs.c.segment, runs.c.agent, runs.c.status, runs.c.reason, runs.c.queue
    is_waiting = sa.or_(
        runs.c.status.in_(("queued", "running")),
        sa.and_(
            runs.c.status == "interrupted", runs.c.reason.in_((*FOR_EXECUTORS, HISTORY_CHANGED))
        ),
    )  # fmt: skip
    code = sa.func.coalesce(runs.c.options["code"], sa.text("'[]'::json"))
    query = sa.select(*columns, runs.c.application_version, code).where(is_waiting, runs.c.id > after)
    names = WaitingRun.__dataclass_fields__
    found = connection.execute(query.order_by(runs.c.id).limit(limit))
    return [WaitingRun(**dict(zip(names, row, strict=True))) for row in found]


def get_stored_run(connection: sa.Connection, run_id: str) -> StoredRun:
    """Return a run with what the engine needs.

    Raises:
        RunNotFoundError: there is no run with this id.
    """
    stored = find_stored_run(connection, run_id)
    if stored is None:
        raise RunNotFoundError(f"There is no run {run_id!r}.")
    return stored


def find_stored_run(connection: sa.Connection, run_id: str, *, for_update: bool = False) -> StoredRun | None:
    """Return a run with what the engine needs; None when there is none."""
    query = sa.select(*runs.c).where(runs.c.id == run_id)
    row = connection.execute(query.with_for_update() if for_update else query).mappings().first()
    return stored_run(row) if row is not None else None


@one_statement
def settled_among(connection: sa.Connection, run_ids: Collection[str]) -> set[str]:
    """Return which of these runs have ended or wait for a person."""
    query = sa.select(runs.c.id).where(runs.c.id.in_(run_ids), runs.c.status.in_((*FINISHED, "interrupted")))
    return set(connection.execute(query).scalars())


@one_statement
def statuses_of(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, tuple[RunStatus, int]]:
    """Return status and last closed segment of runs by their ids, without those that are not there."""
    query = sa.select(runs.c.id, runs.c.status, runs.c.closed_segment)
    found = connection.execute(query.where(runs.c.id == sa.any_(sa.literal(list(run_ids), sa.ARRAY(sa.Text)))))
    return {run_id: (status, segment) for run_id, status, segment in found}


@one_statement
def find_progress(connection: sa.Connection, run_id: str) -> RunProgress | None:
    """Return how far a run is; None when there is none."""
    columns = runs.c.status, runs.c.reason, runs.c.error, runs.c.segment, runs.c.closed_segment
    is_streamed = sa.func.coalesce(runs.c.options["stream"].as_boolean(), False).label("is_streamed")
    row = connection.execute(sa.select(*columns, is_streamed).where(runs.c.id == run_id)).mappings().first()
    if row is None:
        return None
    fields: dict[str, Any] = dict(row)
    fields["reason"] = read_reason(fields["reason"], fields.pop("error"))
    return RunProgress(**fields)


def list_runs(
    connection: sa.Connection,
    *,
    statuses: Sequence[RunStatus] = (),
    agent: str | None = None,
    session_id: str | None = None,
    id_prefix: str | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[Run]:
    """Return runs, the newest first; `before` is creation time and id of the last one of the page before."""
    query = sa.select(*runs.c)
    if statuses:
        query = query.where(runs.c.status.in_(statuses))
    if agent is not None:
        query = query.where(runs.c.agent == agent)
    if session_id is not None:
        query = query.where(runs.c.session_id == session_id)
    if id_prefix:
        query = query.where(runs.c.id.startswith(id_prefix, autoescape=True))
    if before is not None:
        query = query.where(sa.tuple_(runs.c.created_at, runs.c.id) < sa.tuple_(*map(sa.literal, before)))
    query = query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    return [stored_run(row).run for row in connection.execute(query).mappings()]


def request_values(request: RunRequest, input_digest: str) -> dict[str, Any]:
    """Return the columns of a run's row that come from its request."""
    return {
        "id": request.run_id,
        "agent": request.agent,
        "session_id": request.session_id,
        "input": request.input_items,
        "input_digest": input_digest,
        "context": request.context,
        "parent_run_id": request.parent_run_id,
        "options": {
            "max_turns": request.max_turns,
            "stream": request.stream,
            "model": request.model,
            "run_config": dict(request.run_config),
            **({"code": list(request.code)} if request.code else {}),
            "max_turns_per_segment": request.max_turns_per_segment,
            "limits": limits_json(request.limits),
            "resumes_snapshot": request.resumes_snapshot,
            **{name: value for name in AT_PROVIDER if (value := getattr(request, name))},
        },
        "timeout_seconds": request.timeout_seconds,
    }


def model_of(request: RunRequest) -> str | None:
    """Return the name of the model that a run has instead of those of its agents."""
    return request.model or request.run_config.get("model")


def limits_json(limits: RunLimits | None) -> dict[str, Any] | None:
    """Return limits as they are stored with the run's options."""
    return {name: value for name, value in vars(limits).items() if value is not None} if limits is not None else None


REQUEST_COLUMNS = tuple(request_values(RunRequest(run_id="", agent="", input_items=""), ""))
"""The columns of a run's row that come from its request."""


def stored_run(row: Any) -> StoredRun:
    """Return the record of a row of `runs`."""
    options = row["options"]
    request = RunRequest(
        run_id=row["id"],
        agent=row["agent"],
        input_items=row["input"],
        session_id=row["session_id"],
        context=row["context"],
        max_turns=options.get("max_turns"),
        run_config=options.get("run_config") or {},
        code=options.get("code") or (),
        timeout_seconds=row["timeout_seconds"],
        stream=bool(options.get("stream")),
        model=options.get("model"),
        max_turns_per_segment=options.get("max_turns_per_segment"),
        limits=RunLimits(**options["limits"]) if options.get("limits") else None,
        resumes_snapshot=options.get("resumes_snapshot"),
        conversation_id=options.get("conversation_id"),
        previous_response_id=options.get("previous_response_id"),
        auto_previous_response_id=bool(options.get("auto_previous_response_id")),
        parent_run_id=row["parent_run_id"],
    )
    used = TokenUsage(**{name: row[name] for name in TokenUsage.__dataclass_fields__})
    run = Run(
        run_id=row["id"],
        agent=row["agent"],
        status=row["status"],
        reason=read_reason(row["reason"], row["error"]),
        segment=row["segment"],
        session_id=row["session_id"],
        input_items=row["input"],
        output=row["output"],
        error=row["error"],
        queue=row["queue"],
        executor_id=row["executor_id"],
        usage=used,
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        waits_for=row["waits_for"] if row["status"] == "running" else None,
        waits_since=row["waits_since"] if row["status"] == "running" else None,
    )
    names = StoredRun.__dataclass_fields__.keys() - {"run", "request"}
    return StoredRun(run=run, request=request, **{name: row[name] for name in names})


def _seconds_since(moment: Any) -> Any:
    return sa.func.greatest(0, sa.func.coalesce(sa.extract("epoch", sa.func.now() - moment), 0))
