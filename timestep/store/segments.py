"""The two transactions of a segment: `start_segment` and `close_segment`.

Both may be repeated, by the same executor or by the one that took over, and change nothing the second time. They are
on the path of every run, so each is one statement, one transaction by itself, written as SQL once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from timestep.ids import DBOS_SCHEMA, segment_id
from timestep.records import Approval, RunRequest, TokenUsage
from timestep.run_state.envelope import Snapshot
from timestep.store.agents import AgentDefinition, insert_definitions
from timestep.store.approvals import ASKED_COLUMNS, approval_values, consume
from timestep.store.connection import one_statement
from timestep.store.run_states import (
    CLAIM_FOR_RUN,
    DIGEST,
    SNAPSHOT_COLUMNS,
    already_resumed,
    find_snapshot,
    latest_of_run,
)
from timestep.store.runs import REQUEST_COLUMNS, StoredRun, find_stored_run, get_stored_run, request_values, stored_run
from timestep.store.sessions import read_items
from timestep.store.tables import JSON, approvals, insert_rows, runs, sql_type, tool_calls, usage
from timestep.store.tool_calls import COLUMNS as CALL_COLUMNS
from timestep.store.tool_calls import FINISH_RESERVED, ToolCallRow, tool_call_values
from timestep.store.usage import COLUMNS as USAGE_COLUMNS
from timestep.store.usage import ModelCallUsage, usage_values
from timestep.words import FINISHED, KINDS_OF_APPROVAL, REFUSED, RunStatus

_COUNTERS = tuple(TokenUsage.__dataclass_fields__)

_POSITION = """
case when {session} is not null then coalesce(
  {known}, (select s.last_position from timestep.sessions s where s.id = {session}), 0) end"""

_START = f"""
  status = 'running', reason = null, segment = :segment,
  attempt = case when r.segment = :segment then r.attempt + 1 else 1 end,
  agent_hash = coalesce(:agent_hash, r.agent_hash),
  adopted_from = case when r.segment = :segment and r.attempt > 0 then
    case when r.application_version <> :application_version then r.application_version else r.adopted_from end end,
  executor_id = :executor_id, application_version = :application_version,
  session_position = {_POSITION.format(session="r.session_id", known="r.session_position")},
  started_at = coalesce(r.started_at, now()), segment_started_at = now(), waits_for = null, waits_since = null,
  deadline_at = coalesce(case when r.segment = :segment then r.deadline_at end,
                         now() + make_interval(secs => r.timeout_seconds - r.executed_seconds))
where r.id = :id and r.status <> 'cancelled' and r.closed_segment < :segment
  and (r.session_place is null
       or not exists (select 1 from timestep.session_queue q where q.run_id = r.id and q.is_waiting))
returning {", ".join("r." + column.name for column in runs.c)},
  array(select o.function_id from {DBOS_SCHEMA}.operation_outputs o where o.workflow_uuid = :workflow_id) as recorded"""

_STARTED_COLUMNS = (*runs.c, sa.column("recorded"))

_START_KNOWN = sa.text(f"update timestep.runs as r set {_START}").columns(*_STARTED_COLUMNS)

_NEW_RUN = {
    **{name: f"cast(:{name} as {sql_type(runs.c[name])})" for name in REQUEST_COLUMNS},
    "agent_hash": ":agent_hash",
    "status": "'running'",
    "segment": "cast(:segment as integer)",
    "attempt": "1",
    "session_position": _POSITION.format(session="cast(:session_id as text)", known="null"),
    "executor_id": ":executor_id",
    "application_version": ":application_version",
    "deadline_at": "now() + make_interval(secs => cast(:timeout_seconds as float8))",
    "segment_started_at": "now()",
    "started_at": "now()",
}
"""The columns of the row of a run that starts here, and the SQL of each."""


def _starting(*, before: str = "", where: str = "") -> sa.TextualSelect:
    """Return the statement that makes a run's row, or brings it up to date, for a segment that starts."""
    text = (
        f"{before} insert into timestep.runs as r ({', '.join(_NEW_RUN)}) "
        f"select {', '.join(_NEW_RUN.values())} {where} on conflict (id) do update set {_START}"
    )
    given = (sa.bindparam(name, type_=JSON) for name in ("input", "context", "options"))
    return sa.text(text).bindparams(*given).columns(*_STARTED_COLUMNS)


_START_NEW = _starting()
_START_FROM_SNAPSHOT = _starting(
    before=f"with claim as ({CLAIM_FOR_RUN})",
    where="where exists (select from claim) or exists (select from timestep.runs known where known.id = :id)",
)
"""As `_START_NEW`, of a run that goes on from a stored snapshot: without its claim there is no row."""

_SAME = {"run_id": ":id", "segment": ":segment"}

_SUM = "(select coalesce(sum(x), 0) from unnest(cast(:used_{} as bigint[])) x)"

_CLOSE_RUN = f"""
with closed as (
  update timestep.runs as r set
    status = :status, reason = :reason, closed_segment = :segment, segment = :next_segment,
    attempt = case when :next_segment > :segment then 0 else r.attempt end, output = :output, error = :error,
    last_agent = :last_agent, deadline_at = null, finished_at = case when :is_finished then now() end,
    waits_for = null, waits_since = null,
    executed_seconds = r.executed_seconds + greatest(0, extract(epoch from now() - r.segment_started_at)),
    session_items_stored = case when :is_repeated then r.session_items_stored + :items_stored else 0 end,
    {", ".join(f"{name} = r.{name} + {_SUM.format(name)}" for name in _COUNTERS)}
  where r.id = :id and r.status = 'running' and r.closed_segment < :segment returning r.id
), called as ({insert_rows(tool_calls, CALL_COLUMNS, "calls", same=_SAME, after="closed", conflict=FINISH_RESERVED)}
), counted as ({insert_rows(usage, USAGE_COLUMNS, "used", same=_SAME, after="closed")}
)"""

_ADD_ITEMS = """, taken as (
  insert into timestep.sessions (id, last_position) select :session_id, :items_count from closed
  on conflict (id) do update set
    last_position = timestep.sessions.last_position + excluded.last_position, updated_at = now()
  returning last_position
), added as (
  insert into timestep.session_items (session_id, position, run_id, item)
  select :session_id, taken.last_position - :items_count + place, :id, item
  from taken, json_array_elements(:items) with ordinality as given (item, place)
)"""

_ADD_SNAPSHOT = f""", snapshots as (
  insert into timestep.run_states ({", ".join(SNAPSHOT_COLUMNS)}, digest)
  select {", ".join(":state_" + name for name in SNAPSHOT_COLUMNS)}, {DIGEST.format("cast(:state_state as text)")}
  from closed
)"""

_DROP_CHECKPOINTS = """, dropped as (
  delete from timestep.run_states using closed
  where run_id = closed.id and kind = 'checkpoint' and not is_saved and segment < :segment
)"""

_ADD_QUESTIONS = f""", questions as ({insert_rows(approvals, ASKED_COLUMNS, "asked", after="closed")}
)"""

_TYPES = {
    **dict.fromkeys(("output", "error", "items"), JSON),
    **dict.fromkeys(("state_state", "state_output", "state_held_items", "state_mcp_tools"), JSON),
    **dict.fromkeys(("status", "session_id"), sa.Text()),
    **dict.fromkeys(("segment", "next_segment"), sa.Integer()),
    "items_count": sa.BigInteger(),
    "items_stored": sa.BigInteger(),
    "is_repeated": sa.Boolean(),
}

_END = " select count(*) from closed"
_END_AND_CONTINUE = " select count(timestep.enqueue_segment(id, :next_segment)) from closed"


@functools.cache
def _close_statement(*parts: str) -> sa.TextClause:
    """Return the closing statement of the parts that a segment needs; short ones are parsed once by the driver."""
    text = _CLOSE_RUN + "".join(parts)
    typed = {name: kind for name, kind in _TYPES.items() if re.search(rf":{name}\b", text)}
    return sa.text(text).bindparams(*(sa.bindparam(name, type_=kind) for name, kind in typed.items()))


@dataclass(frozen=True, kw_only=True)
class Used:
    """What a run has used. `unpriced` is a model whose price is unknown, or None; the cost is then more than that."""

    turns: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost_micro_usd: int = 0
    unpriced: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StartedSegment:
    """What a segment starts from. `is_closed`: it has ended before, and the row says how.

    `recorded` are the ids of the steps that the segment's journal holds already. `snapshot` is the newest with which a
    segment of the run ended, `decisions` are all that the run asked before, and `used` is what it had used at the
    snapshot, when it has limits.
    """

    stored: StoredRun
    history: list[dict[str, Any]]
    is_closed: bool
    recorded: Sequence[int] = ()
    snapshot: Snapshot | None = None
    decisions: Sequence[Approval] = ()
    used: Used | None = None


@dataclass(frozen=True, kw_only=True)
class Closing:
    """Everything that the closing transaction of a segment stores.

    `items_written` were added to a session that is not kept with the run. `continues`: the run goes on at once in the
    next segment, from the snapshot. `is_repeated`: the next segment, if there is one, repeats this one from a copy of
    its journal, and brings its session items again.
    """

    run_id: str
    segment: int
    status: RunStatus
    reason: str | None
    output: Any
    error: dict[str, Any] | None
    last_agent: str | None
    session_id: str | None
    session_items: Sequence[dict[str, Any]] = ()
    items_written: int = 0
    snapshot: Snapshot | None = None
    tool_calls: Sequence[ToolCallRow] = field(default_factory=tuple)
    model_calls: Sequence[ModelCallUsage] = field(default_factory=tuple)
    approvals: Sequence[Approval] = field(default_factory=tuple)
    continues: bool = False
    is_repeated: bool = False


@one_statement
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
) -> StartedSegment:
    """Note that a segment executes here now, and read what it starts from.

    A run that was started directly gets its row here, from `request`. The end of the session's history is fixed by
    the first start, so that a repeat sees the same items. A closed or cancelled run is not touched, nor one that waits
    for its session.

    Raises:
        RunNotFoundError: there is no row and no request.
        SnapshotAlreadyResumed: the run goes on from a snapshot that somebody else has resumed.
    """
    if definition is not None and not is_definition_stored:
        insert_definitions(connection, [definition])
    values: dict[str, Any] = {
        "id": run_id,
        "segment": segment,
        "workflow_id": segment_id(run_id, segment),
        "agent_hash": definition.hash if definition is not None else None,
        "executor_id": executor_id,
        "application_version": application_version,
    }
    if request is None:
        found = connection.execute(_START_KNOWN, values)
    else:
        values |= request_values(request, input_digest)
        snapshot_id = request.resumes_snapshot
        if snapshot_id is not None:
            values["resumes_snapshot"] = snapshot_id
        found = connection.execute(_START_NEW if snapshot_id is None else _START_FROM_SNAPSHOT, values)
    row = found.mappings().first()
    is_closed = row is None
    if is_closed and request is not None and request.resumes_snapshot is not None:
        _check_claimed(connection, request)
    stored = stored_run(row) if row is not None else get_stored_run(connection, run_id)
    history: list[dict[str, Any]] = []
    if not is_closed and stored.run.session_id and stored.session_position:
        history = read_items(connection, stored.run.session_id, up_to_position=stored.session_position)
    recorded = row["recorded"] if row is not None else ()
    if is_closed or segment == 1:
        return StartedSegment(stored=stored, history=history, is_closed=is_closed, recorded=recorded, used=Used())
    snapshot = latest_of_run(connection, run_id)
    return StartedSegment(
        stored=stored,
        history=history,
        is_closed=False,
        recorded=recorded,
        snapshot=snapshot,
        decisions=consume(connection, run_id, before_segment=segment),
        used=_used(connection, stored, until=(snapshot.segment if snapshot is not None else None) or 0),
    )


def _check_claimed(connection: sa.Connection, request: RunRequest) -> None:
    """Refuse a run that has no row because the snapshot was not there to claim."""
    if find_stored_run(connection, request.run_id) is None:
        assert request.resumes_snapshot is not None
        raise already_resumed(find_snapshot(connection, request.resumes_snapshot), request.resumes_snapshot)


@one_statement
def close_segment(connection: sa.Connection, closing: Closing) -> bool:
    """End a segment: the run's row, session items, snapshot, approvals, tool calls and usage, all or nothing.

    Return False, and change nothing, when the segment is closed already or the run was cancelled meanwhile.
    """
    fresh = _fresh_calls(connection, closing)
    items = list(closing.session_items) if closing.session_id else []
    values: dict[str, Any] = {
        "id": closing.run_id,
        "segment": closing.segment,
        "status": closing.status,
        "reason": closing.reason,
        "is_finished": closing.status in FINISHED,
        "output": closing.output,
        "error": closing.error,
        "last_agent": closing.last_agent,
        "items_count": len(items),
        "items_stored": len(items) + closing.items_written,
        "next_segment": closing.segment + 1 if closing.continues else closing.segment,
        "is_repeated": closing.is_repeated,
    }
    values |= tool_call_values(closing.tool_calls) | usage_values(fresh)
    parts: list[str] = []
    if items:
        parts.append(_ADD_ITEMS)
        values |= {"session_id": closing.session_id, "items": items}
    if closing.snapshot is not None:
        parts.append(_ADD_SNAPSHOT)
        if closing.segment > 1:
            parts.append(_DROP_CHECKPOINTS)
        values |= {f"state_{name}": getattr(closing.snapshot, name) for name in SNAPSHOT_COLUMNS}
    if closing.approvals:
        parts.append(_ADD_QUESTIONS)
        values |= approval_values(closing.approvals)
    parts.append(_END_AND_CONTINUE if closing.continues else _END)
    return connection.execute(_close_statement(*parts), values).scalar_one() == 1


def enqueue_segment(connection: sa.Connection, run_id: str, segment: int, *, is_copy: bool = False) -> None:
    """Enqueue a segment of a run, which may have been enqueued before; `is_copy`: from a copy of the journal."""
    query = sa.text("select timestep.enqueue_segment(:run_id, :segment, :is_copy)")
    connection.execute(query, {"run_id": run_id, "segment": segment, "is_copy": is_copy})


def enqueue_missing(connection: sa.Connection, run_id: str, segment: int) -> None:
    """Enqueue a segment that nothing starts, as `timestep.decide` does: after a halt from a copy of the journal."""
    if segment == 1:
        queued = sa.text("select timestep.enqueue_run(id) from timestep.runs where id = :run_id and queue is not null")
        connection.execute(queued, {"run_id": run_id})
        return
    halted = sa.select(approvals.c.id).where(
        approvals.c.run_id == run_id, approvals.c.segment == segment - 1,
        approvals.c.kind.in_([each.word for each in KINDS_OF_APPROVAL if each.is_repeated]),
    )  # fmt: skip
    enqueue_segment(connection, run_id, segment, is_copy=connection.execute(halted.limit(1)).first() is not None)


def _fresh_calls(connection: sa.Connection, closing: Closing) -> list[ModelCallUsage]:
    """Return the model calls that no segment has stored: one that replays a copied journal brings its calls again."""
    if closing.segment == 1:
        return list(closing.model_calls)
    known = set(connection.execute(sa.select(usage.c.step).where(usage.c.run_id == closing.run_id)).scalars())
    return [call for call in closing.model_calls if call.step not in known]


def _used(connection: sa.Connection, stored: StoredRun, *, until: int) -> Used | None:
    """Return what the segments up to `until` have used, of a run that has limits."""
    if stored.request.limits is None:
        return None
    of_run = usage.c.run_id == stored.run.run_id, usage.c.segment <= until
    total = sa.select(
        sa.func.count().filter(usage.c.step.not_like(f"%{REFUSED}%")),
        sa.func.coalesce(sa.func.sum(usage.c.input_tokens + usage.c.output_tokens), 0),
        sa.func.coalesce(sa.func.sum(usage.c.cost_micro_usd), 0),
        sa.func.max(sa.func.coalesce(usage.c.model, "")).filter(usage.c.cost_micro_usd.is_(None)),
    ).where(*of_run)
    turns, tokens, cost, unpriced = connection.execute(total).one()
    calls = sa.select(sa.func.count()).where(
        tool_calls.c.run_id == stored.run.run_id, tool_calls.c.segment <= until, tool_calls.c.finished_at.is_not(None)
    )
    return Used(
        turns=turns,
        tool_calls=connection.execute(calls).scalar_one(),
        tokens=int(tokens),
        cost_micro_usd=int(cost),
        unpriced=unpriced,
        seconds=stored.executed_seconds,
    )
