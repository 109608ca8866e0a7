"""Runs: `runs`, one row for each piece of work, and the two transactions of a segment.

`runs.status` is the truth about a run. A segment begins with `start_segment` and ends with `close_segment`; both may
be repeated, by the same executor or by the one that took over, and change nothing the second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from timestep.errors import RunNotFoundError
from timestep.records import FINISHED, Run, RunRequest, RunStatus, TokenUsage
from timestep.run_state.envelope import Snapshot
from timestep.store.agents import AgentDefinition, insert_definitions
from timestep.store.approvals import Approval, insert_approvals
from timestep.store.run_states import save_snapshot
from timestep.store.sessions import append_items, last_position, read_items
from timestep.store.tables import runs, sessions, usage
from timestep.store.tool_calls import ToolCall, insert_tool_calls
from timestep.store.usage import ModelCallUsage, insert_usage


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
    deadline_at: datetime | None
    last_agent: str | None


@dataclass(frozen=True, kw_only=True)
class StartedSegment:
    """What a segment starts from. `is_closed`: it has ended before, and the row says how."""

    stored: StoredRun
    history: list[dict[str, Any]]
    is_closed: bool


@dataclass(frozen=True, kw_only=True)
class Closing:
    """Everything that the closing transaction of a segment stores."""

    run_id: str
    segment: int
    status: RunStatus
    reason: str | None
    output: Any
    error: dict[str, Any] | None
    last_agent: str | None
    session_id: str | None
    session_items: Sequence[dict[str, Any]] = ()
    snapshot: Snapshot | None = None
    tool_calls: Sequence[ToolCall] = field(default_factory=tuple)
    model_calls: Sequence[ModelCallUsage] = field(default_factory=tuple)
    approvals: Sequence[Approval] = field(default_factory=tuple)


def insert_run(
    connection: sa.Connection,
    request: RunRequest,
    *,
    input_digest: str,
    queue: str | None,
    parent: str | None = None,
) -> bool:
    """Store a queued run; return False when its id is there already."""
    values = _request_values(request, input_digest) | {
        "status": "queued",
        "queue": queue,
        "parent_run_id": parent,
    }
    statement = insert(runs).values(values).on_conflict_do_nothing().returning(runs.c.id)
    return connection.execute(statement).first() is not None


def start_segment(
    connection: sa.Connection,
    *,
    run_id: str,
    segment: int,
    request: RunRequest | None,
    input_digest: str,
    executor_id: str,
    application_version: str,
    definition: AgentDefinition | None,
    is_definition_stored: bool = False,
    parent: str | None = None,
) -> StartedSegment:
    """Note that a segment executes here now, and read what it starts from.

    A run that was started directly gets its row here, from `request`. The end of the session's history is fixed by
    the first start, so that a repeat sees the same items. A closed or cancelled run is not touched.

    Raises:
        RunNotFoundError: there is no row and no request.
    """
    if definition is not None and not is_definition_stored:
        insert_definitions(connection, [definition])
    # A row that is there tells its own session; the one that is made here has the request's.
    last: Any = _last_position()
    if request is not None:
        last = last_position(connection, request.session_id) if request.session_id else 0
    position = sa.case((runs.c.session_id.is_not(None), sa.func.coalesce(runs.c.session_position, last)))
    same_segment = runs.c.segment == segment
    start = {
        "status": "running",
        "reason": None,
        "segment": segment,
        "attempt": sa.case((same_segment, runs.c.attempt + 1), else_=1),
        "executor_id": executor_id,
        "application_version": application_version,
        "session_position": position,
        "started_at": sa.func.coalesce(runs.c.started_at, sa.func.now()),
        "segment_started_at": sa.func.now(),
        "deadline_at": sa.func.coalesce(
            sa.case((same_segment, runs.c.deadline_at)),
            _deadline(runs.c.timeout_seconds - runs.c.executed_seconds),
        ),
    }
    if definition is not None:
        start["agent_hash"] = definition.hash
    may_start = sa.and_(runs.c.status.not_in(("cancelled",)), runs.c.closed_segment < segment)
    if request is None:
        statement: Any = sa.update(runs).where(runs.c.id == run_id, may_start).values(start)
    else:
        values = _request_values(request, input_digest) | {
            "status": "running",
            "attempt": 1,
            "executor_id": executor_id,
            "application_version": application_version,
            "agent_hash": definition.hash if definition else None,
            "parent_run_id": parent,
            "session_position": last if request.session_id else None,
            "started_at": sa.func.now(),
            "segment_started_at": sa.func.now(),
            "deadline_at": _deadline(request.timeout_seconds) if request.timeout_seconds is not None else None,
        }
        statement = insert(runs).values(values)
        statement = statement.on_conflict_do_update(index_elements=[runs.c.id], set_=start, where=may_start)
    row = connection.execute(statement.returning(*runs.c)).mappings().first()
    is_closed = row is None
    stored = _stored(row) if row is not None else get_stored_run(connection, run_id)
    history: list[dict[str, Any]] = []
    if not is_closed and stored.run.session_id and stored.session_position:
        history = read_items(connection, stored.run.session_id, up_to_position=stored.session_position)
    return StartedSegment(stored=stored, history=history, is_closed=is_closed)


def close_segment(connection: sa.Connection, closing: Closing) -> bool:
    """End a segment: the run's row, session items, snapshot, approvals, tool calls and usage, all or nothing.

    Return False, and change nothing, when the segment is closed already or the run was cancelled meanwhile.
    """
    change = {
        "status": closing.status,
        "reason": closing.reason,
        "closed_segment": closing.segment,
        "output": closing.output,
        "error": closing.error,
        "last_agent": closing.last_agent,
        "deadline_at": None,
        "finished_at": sa.func.now() if closing.status in FINISHED else None,
        "executed_seconds": runs.c.executed_seconds + _seconds_since(runs.c.segment_started_at),
        "session_items_stored": (
            runs.c.session_items_stored + len(closing.session_items) if closing.status == "failed" else 0
        ),
    }
    is_open = sa.and_(runs.c.id == closing.run_id, runs.c.status == "running", runs.c.closed_segment < closing.segment)
    fresh = _fresh_calls(connection, closing)
    for name in TokenUsage.__dataclass_fields__:
        change[name] = runs.c[name] + sum(getattr(call, name) for call in fresh)
    if connection.execute(sa.update(runs).where(is_open).values(change)).rowcount != 1:
        return False
    if closing.session_id:
        append_items(connection, closing.session_id, closing.session_items, run_id=closing.run_id)
    if closing.snapshot is not None:
        save_snapshot(connection, closing.snapshot)
    insert_tool_calls(connection, closing.tool_calls)
    insert_usage(connection, fresh)
    insert_approvals(connection, closing.approvals)
    return True


def mark_cancelled(connection: sa.Connection, run_id: str, *, reason: str) -> StoredRun | None:
    """Cancel a run that is not finished; return it as it was, or None when it is finished or cancelled already."""
    before = find_stored_run(connection, run_id, for_update=True)
    if before is None or before.run.status in FINISHED:
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


def mark_parked(connection: sa.Connection, run_id: str, *, reason: str) -> bool:
    """Interrupt a running run whose segment cannot go on here, without closing the segment."""
    change = sa.update(runs).where(runs.c.id == run_id, runs.c.status == "running")
    return connection.execute(change.values(status="interrupted", reason=reason)).rowcount == 1


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
    """Queue a run again, for its segment to go on or for a new one; False when its status is not in `was`."""
    change: dict[str, Any] = {"status": "queued", "reason": None, "finished_at": None, "error": None}
    if segment is not None:
        change |= {"segment": segment, "attempt": 0}
    statement = sa.update(runs).where(runs.c.id == run_id, runs.c.status.in_(was)).values(change)
    return connection.execute(statement).rowcount == 1


def mark_failed(connection: sa.Connection, run_id: str, *, reason: str, error: dict[str, Any]) -> bool:
    """End a running or queued run whose workflow ended without closing its segment."""
    statement = sa.update(runs).where(runs.c.id == run_id, runs.c.status.in_(("running", "queued")))
    change = {"status": "failed", "reason": reason, "error": error, "finished_at": sa.func.now()}
    return connection.execute(statement.values(change)).rowcount == 1


def overdue_runs(connection: sa.Connection) -> list[str]:
    """Return the running runs that have reached their time limit."""
    query = sa.select(runs.c.id).where(runs.c.status == "running", runs.c.deadline_at <= sa.func.now())
    return list(connection.execute(query).scalars())


def runs_waiting_for_agents(connection: sa.Connection, agents: Sequence[str]) -> list[tuple[str, int]]:
    """Return id and segment of the runs that no executor could take because it did not know their agent."""
    query = sa.select(runs.c.id, runs.c.segment).where(
        runs.c.status == "interrupted", runs.c.reason == "agent_not_registered", runs.c.agent.in_(agents)
    )
    return [(run_id, segment) for run_id, segment in connection.execute(query)]


def unfinished_segments(connection: sa.Connection, *, older_than_seconds: float) -> list[tuple[str, int, RunStatus]]:
    """Return id, segment and status of running, queued and just cancelled runs, for a look at their workflows."""
    age = sa.func.now() - sa.cast(f"{older_than_seconds} seconds", sa.Interval)
    recently = sa.func.now() - sa.cast("1 hour", sa.Interval)
    query = sa.select(runs.c.id, runs.c.segment, runs.c.status).where(
        sa.or_(
            sa.and_(
                runs.c.status.in_(("running", "queued")),
                sa.func.coalesce(runs.c.segment_started_at, runs.c.created_at) < age,
            ),
            sa.and_(runs.c.status == "cancelled", runs.c.finished_at > recently),
        )
    )
    return [(run_id, segment, status) for run_id, segment, status in connection.execute(query)]


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
    return _stored(row) if row is not None else None


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
    return [_stored(row).run for row in connection.execute(query).mappings()]


def count_runs(connection: sa.Connection) -> dict[str, int]:
    """Return the number of runs by status."""
    query = sa.select(runs.c.status, sa.func.count()).group_by(runs.c.status)
    return {row[0]: row[1] for row in connection.execute(query)}


def _request_values(request: RunRequest, input_digest: str) -> dict[str, Any]:
    return {
        "id": request.run_id,
        "agent": request.agent,
        "session_id": request.session_id,
        "input": request.input_items,
        "input_digest": input_digest,
        "context": request.context,
        "options": {
            "max_turns": request.max_turns,
            "stream": request.stream,
            "model": request.model,
            "run_config": dict(request.run_config),
        },
        "timeout_seconds": request.timeout_seconds,
    }


def _stored(row: Any) -> StoredRun:
    options = row["options"]
    request = RunRequest(
        run_id=row["id"],
        agent=row["agent"],
        input_items=row["input"],
        session_id=row["session_id"],
        context=row["context"],
        max_turns=options.get("max_turns"),
        run_config=options.get("run_config") or {},
        timeout_seconds=row["timeout_seconds"],
        stream=bool(options.get("stream")),
        model=options.get("model"),
    )
    used = TokenUsage(**{name: row[name] for name in TokenUsage.__dataclass_fields__})
    run = Run(
        run_id=row["id"],
        agent=row["agent"],
        status=row["status"],
        reason=row["reason"],
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
    )
    names = (
        "input_digest",
        "agent_hash",
        "closed_segment",
        "attempt",
        "session_position",
        "session_items_stored",
        "timeout_seconds",
        "deadline_at",
        "last_agent",
    )
    return StoredRun(run=run, request=request, **{name: row[name] for name in names})


def _fresh_calls(connection: sa.Connection, closing: Closing) -> list[ModelCallUsage]:
    """Return the model calls that no segment has stored: one that replays a copied journal brings its calls again."""
    if closing.segment == 1:
        return list(closing.model_calls)
    known = set(connection.execute(sa.select(usage.c.step).where(usage.c.run_id == closing.run_id)).scalars())
    return [call for call in closing.model_calls if call.step not in known]


def _last_position() -> Any:
    found = sa.select(sessions.c.last_position).where(sessions.c.id == runs.c.session_id).correlate(runs)
    return sa.func.coalesce(found.scalar_subquery(), 0)


def _deadline(seconds: Any) -> Any:
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _seconds_since(moment: Any) -> Any:
    return sa.func.greatest(0, sa.func.coalesce(sa.extract("epoch", sa.func.now() - moment), 0))
