# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
"""Every private name of DBOS that Timestep uses, checked when this module is imported.

Each entry says why the public interface does not do. Pinned to `dbos>=3.4,<3.5`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

import dbos._context as dbos_context
import dbos._dbos as dbos_dbos
import dbos._recovery as dbos_recovery
import dbos._serialization as dbos_serialization
import dbos._sys_db as dbos_sys_db
import sqlalchemy as sa
from dbos import DBOS, DBOSClient, StepReservation
from dbos._context import DBOSContext
from dbos._schemas.system_database import SystemSchema
from dbos._sys_db import OperationResultInternal, RecordedResult, SystemDatabase
from dbos._utils import INTERNAL_QUEUE_NAME
from sqlalchemy import Engine

from timestep.durable.seams.group_commit import Rounds
from timestep.durable.seams.tool_threads import SortingExecutor
from timestep.errors import UnsupportedError
from timestep.ids import DBOS_SCHEMA, SEGMENT_MARK, STREAM_KEY

LARGEST_STEP_ID = 2**31 - 1
"""Step ids are INT4 columns."""

T = TypeVar("T")
_journal: tuple[DBOS, _Journal] | None = None
"""A DBOS instance, and the short ways to its rows."""

_STREAMS = sa.table(
    SystemSchema.streams.name,
    *(sa.column(SystemSchema.streams.c[name].name) for name in ("workflow_uuid", "key", "value", "offset")),
    schema=DBOS_SCHEMA,
)


def current_context() -> DBOSContext | None:
    """Return the DBOS context of this task, or None outside DBOS. No public name tells a step from a workflow."""
    return dbos_context.get_local_dbos_context()


def is_in_workflow() -> bool:
    """Whether this task runs workflow code, outside any step."""
    context = dbos_context.get_local_dbos_context()
    return context is not None and context.is_workflow()


def is_in_step() -> bool:
    """Whether this task runs inside a step."""
    context = dbos_context.get_local_dbos_context()
    return context is not None and context.is_step()


def set_context(context: DBOSContext | None) -> None:
    """Make `context` that of this task. Parallel sub-agents draw their step ids from contexts of their own."""
    dbos_context._set_local_dbos_context(context)


def reserve_block(size: int) -> DBOSContext:
    """Return a copy of this task's context that draws step ids from a block of `size` ids of its own.

    Raises:
        UnsupportedError: the workflow has no such block left.
    """
    context = dbos_context.get_local_dbos_context()
    assert context is not None
    first = context.function_id
    if first + size > LARGEST_STEP_ID:
        raise UnsupportedError(
            f"The run {context.workflow_id!r} has used its {LARGEST_STEP_ID:,} step ids.",
            hint="Split the work: fewer parallel sub-agents in one run, or several runs.",
        )
    context.function_id = first + size
    block = copy.copy(context)
    block.function_id = first
    block.context_spans = list(context.context_spans)
    return block


def next_child_id() -> str:
    """Return an id for a run that workflow code starts without one: the same on every replay. Draws a step id."""
    context = dbos_context.get_local_dbos_context()
    assert context is not None
    context.function_id += 1
    return f"{context.workflow_id.replace(SEGMENT_MARK, '.')}-{context.function_id}"


OWNED_SECONDS = 0.01
"""How long an execution counts as the owner of its workflow after a proof: no longer than a cancel is under way."""

LARGEST_TOGETHER = 100_000
"""Characters of a result up to which it is recorded together with others; a larger one would make them wait."""


class Known:
    """What one execution of a workflow knows without a look into the journal.

    DBOS looks before each step whether it is recorded and whether the workflow is cancelled. Which steps were recorded
    when the execution began is known from its start, and nobody else adds to them. That the workflow is neither
    cancelled nor taken over is proved by each record of a step: it fails otherwise. So a step that closely follows the
    start or another step, and was not recorded at the start, needs no look.

    Args:
        recorded: The step ids that were recorded when the execution began, just now; unknown when absent.
    """

    def __init__(self, recorded: Iterable[int] | None = None) -> None:
        self._recorded = frozenset(recorded) if recorded is not None else None
        self._owned_at = time.monotonic()

    def is_owned(self, at: float) -> None:
        """Say that this execution owned the workflow at a time of the monotonic clock."""
        self._owned_at = max(self._owned_at, at)

    def is_new(self, step_id: int) -> bool:
        """Whether the step is not recorded, as long as this execution owns the workflow."""
        return self._recorded is not None and step_id not in self._recorded

    @property
    def is_owned_still(self) -> bool:
        """Whether the workflow was this execution's a moment ago."""
        return time.monotonic() - self._owned_at < OWNED_SECONDS


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The row of a step that has a result; `owner` is the token of the execution that ran it."""

    workflow_id: str
    owner: str
    step_id: int
    name: str
    output: str
    started_at: int
    completed_at: int


class _Journal:
    """The short ways to DBOS's rows of one process: looks and records of many steps in one statement each.

    What they do not settle goes DBOS's own way, which waits, tries again and says what is wrong.
    """

    def __init__(self, instance: DBOS, engine: Engine) -> None:
        self.system = instance._sys_db
        self.slow_reader = copy.copy(self.system)
        self.slow_reader.engine = engine.execution_options(**self.system.engine.get_execution_options())
        self.looks = Rounds(self._owned, instance._executor)
        self.records = Rounds(self._record, instance._executor)
        self._engine, self._application, self._serialization = engine, self.system.app_name, instance._serializer.name()

    def _owned(self, asked: Sequence[tuple[str, str]]) -> Collection[int]:
        """Return which of the pairs of workflow and token belong together still, of workflows that go on."""
        with self._engine.connect() as connection:
            rows = connection.exec_driver_sql(_OWNED, {"workflows": [workflow for workflow, _ in asked]})
            owned = {(row[0], row[1]) for row in rows}
        return {number for number, each in enumerate(asked) if each in owned}

    def _record(self, asked: Sequence[_Record]) -> Collection[int]:
        """Insert the rows of executions that still own their workflow, and that were not there; return which.

        A workflow whose row somebody else holds locked is left out: nobody waits here for another's workflow.
        """
        given: dict[str, Any] = {field.name: [getattr(each, field.name) for each in asked] for field in fields(_Record)}
        given |= {"application": self._application, "serialization": self._serialization}
        with self._engine.connect() as connection:
            recorded = {(row[0], row[1]) for row in connection.exec_driver_sql(_RECORD, given)}
        return {number for number, each in enumerate(asked) if (each.workflow_id, each.step_id) in recorded}


_OUTPUT_COLUMNS = {
    "workflow_uuid",
    "function_id",
    "function_name",
    "output",
    "error",
    "child_workflow_id",
    "started_at_epoch_ms",
    "completed_at_epoch_ms",
    "serialization",
    "application_name",
    "retention_timestamp",
}
"""The columns that `_RECORD` knows; those that it does not fill are null in the row of a step that has a result."""

_OWNED = f"""
select workflow_uuid, owner_xid from {DBOS_SCHEMA}.workflow_status
where workflow_uuid = any(%(workflows)s::text[]) and status = 'PENDING'
"""

_CANCELLED = f"""
select workflow_uuid from {DBOS_SCHEMA}.workflow_status
where workflow_uuid = any(%(workflows)s::text[]) and status = 'CANCELLED'
"""

_RECORD = f"""
with given as (
  select * from unnest(
    %(workflow_id)s::text[], %(owner)s::text[], %(step_id)s::int[], %(name)s::text[], %(output)s::text[],
    %(started_at)s::bigint[], %(completed_at)s::bigint[]
  ) as given(workflow_uuid, owner_xid, function_id, function_name, output, started_at, completed_at)),
held as (
  select workflow_uuid, owner_xid from {DBOS_SCHEMA}.workflow_status
  where workflow_uuid = any(%(workflow_id)s::text[])
  for no key update skip locked)
insert into {DBOS_SCHEMA}.operation_outputs (
  workflow_uuid, function_id, function_name, output, started_at_epoch_ms, completed_at_epoch_ms,
  serialization, application_name, retention_timestamp)
select workflow_uuid, function_id, function_name, output, started_at, completed_at,
  %(serialization)s::text, %(application)s::text, (extract(epoch from now()) * 1000)::bigint
from given join held using (workflow_uuid, owner_xid)
on conflict do nothing
returning workflow_uuid, function_id
"""


async def run_reserved(
    reservation: StepReservation, name: str, body: Callable[[], Awaitable[tuple[T, str]]], known: Known
) -> T:
    """Run `body` as the step of a reservation and return its result, the recorded or the just made one.

    `body` returns its result and the text that the journal's serializer makes of it. This is what DBOS does for a step,
    cheaper: `StepReservation.run_async` goes through the executor three times, once for nothing, and makes six
    statements for each step, where one does for a step, and one for many when many runs record theirs at once.
    """
    reservation._claim()
    instance, context = _instance(), reservation._step_ctx
    serializer, journal = instance._serializer, _journal_of(instance)
    workflow_id, step_id, started_at = context.workflow_id, context.function_id, int(time.time() * 1000)
    owner = context.owner_xid

    def record(*, output: str | None = None, error: Exception | None = None, completed_at: int | None = None) -> None:
        result: OperationResultInternal = {
            "workflow_uuid": workflow_id,
            "function_id": step_id,
            "function_name": name,
            "output": output,
            "error": serializer.serialize(error) if error is not None else None,
            "serialization": serializer.name(),
            "started_at_epoch_ms": started_at,
            "child_workflow_id": None,
        }
        journal.system.record_operation_result(result, completed_at_epoch_ms=completed_at)

    async def look() -> RecordedResult | None:
        if known.is_new(step_id):
            if known.is_owned_still:
                return None
            if owner is not None and (at := await journal.looks.settle((workflow_id, owner))) is not None:
                known.is_owned(at)
                return None
        return await _in_pool(journal.slow_reader.check_operation_execution, workflow_id, step_id, name)

    async def keep(output: str) -> None:
        completed_at = int(time.time() * 1000)
        if owner is not None and len(output) <= LARGEST_TOGETHER:
            row = _Record(
                workflow_id=workflow_id,
                owner=owner,
                step_id=step_id,
                name=name,
                output=output,
                started_at=started_at,
                completed_at=completed_at,
            )
            if (at := await journal.records.settle(row)) is not None:
                known.is_owned(at)
                return
        # The same time, so that a round that was committed and never answered is known as this very record.
        await _in_pool(record, output=output, completed_at=completed_at)

    await DBOS._configure_asyncio_thread_pool()  # for what the body does in threads
    with dbos_context.EnterDBOSStepCtx({"name": name, "operationType": "step"}, context):
        recorded = await look()
        if recorded is not None:
            return _value_of(recorded, serializer)
        try:
            value, text = await body()
            await keep(text)
        except Exception as error:
            await _in_pool(record, error=error)
            raise
        return value


def shorten_ways(engine: Engine) -> None:
    """Let `run_reserved` look and record on `engine`, whose connections are in autocommit; after the launch."""
    global _journal
    _journal = (_instance(), _Journal(_instance(), engine))


def record_outcome(workflow_id: str, output: Any, *, owner: str | None) -> None:
    """Note that a workflow succeeded, if this execution still owns it; blocks."""
    instance = _instance()
    instance._sys_db.update_workflow_outcome(
        workflow_id, "SUCCESS", output=instance._serializer.serialize(output), owner_xid=owner
    )


def owner_token() -> str | None:
    """Return the token with which this execution owns its workflow."""
    context = dbos_context.get_local_dbos_context()
    return context.owner_xid if context is not None else None


def current_owner(workflow_id: str) -> str | None:
    """Return the token of the execution that owns a workflow now; blocks on one query."""
    return _instance()._sys_db.get_workflow_owner(workflow_id)


def attempts_of_workflow() -> int:
    """Return how often the workflow of this task was started; blocks on one query."""
    context = dbos_context.get_local_dbos_context()
    status = _instance()._sys_db.get_workflow_status(context.workflow_id) if context is not None else None
    return (status or {}).get("recovery_attempts") or 1


def recover_executors(executor_ids: Iterable[str]) -> int:
    """Put the pending workflows of gone executors back on the internal queue; return how many.

    The public way (`resume_workflows`) resets attempts, deadline and queue. Rows of this process's application
    version only. Harmless when repeated.
    """
    handles = dbos_recovery.recover_pending_workflows(_instance(), list(executor_ids))
    return len(handles)


def idle_workflows(executor_id: str) -> set[str]:
    """Return the workflows of this executor that nothing executes: just claimed and not begun, or lost; blocks."""
    found = DBOS.list_workflows(status="PENDING", executor_id=executor_id, load_input=False, load_output=False)
    return {workflow.workflow_id for workflow in found} - set(active_workflow_ids())


def recover_lost(executor_id: str, workflow_ids: Iterable[str]) -> None:
    """Put workflows of this executor that nothing executes back on the internal queue."""
    for workflow_id in workflow_ids:
        _instance()._sys_db.reenqueue_for_recovery(workflow_id, [executor_id], INTERNAL_QUEUE_NAME)


@dataclass(frozen=True, kw_only=True)
class BoundWorkflow:
    """A workflow that waits for an application version."""

    workflow_id: str
    name: str
    version: str
    has_steps: bool


def bound_elsewhere(*, alive: Collection[str], executor_id: str | None, limit: int = 1000) -> list[BoundWorkflow]:
    """Return workflows of this application that are bound to none of the versions `alive`.

    Queued ones, or with `executor_id` those that this executor was executing. Only what this process has a function
    for, and versions that Timestep made. DBOS's lists cannot leave versions out.
    """
    instance = _instance()
    ws, steps = instance._sys_db.tables.workflow_status, instance._sys_db.tables.operation_outputs
    application = instance._sys_db.app_name
    query = sa.select(
        ws.c.workflow_uuid,
        ws.c.name,
        ws.c.application_version,
        sa.exists().where(steps.c.workflow_uuid == ws.c.workflow_uuid),
    ).where(
        ws.c.status.in_(("ENQUEUED", "DELAYED")) if executor_id is None else ws.c.status == "PENDING",
        ws.c.executor_id == executor_id if executor_id is not None else sa.true(),
        sa.or_(ws.c.application_name == application, ws.c.application_name.is_(None)),
        ws.c.application_version.startswith(f"{application}:", autoescape=True),
        ws.c.application_version.not_in(list(alive)),
        ws.c.name.in_(list(instance._registry.workflow_info_map)),
    )
    with _alone(instance._sys_db) as connection:
        rows = connection.execute(query.limit(limit)).fetchall()
    return [BoundWorkflow(workflow_id=row[0], name=row[1], version=row[2], has_steps=row[3]) for row in rows]


def bind_workflows(
    client: DBOSClient, workflow_ids: Collection[str], version: str, *, executor_id: str | None = None
) -> None:
    """Bind workflows that nobody executes to an application version; no public name does. May be repeated.

    With `executor_id` those too that this executor, which is gone or this one, executes.
    """
    ws = client._sys_db.tables.workflow_status
    is_free = ws.c.status.in_(("ENQUEUED", "DELAYED", "CANCELLED"))
    is_held = sa.and_(ws.c.status == "PENDING", ws.c.executor_id == executor_id)
    change = sa.update(ws).where(ws.c.workflow_uuid.in_(list(workflow_ids)), sa.or_(is_free, is_held))
    with _alone(client._sys_db) as connection:
        connection.execute(change.values(application_version=version))


def leave_rate_limits(executor_id: str, queue: str) -> None:
    """Move what a gone executor was executing to `queue` from queues that limit nothing but starts: it has started.

    Its recovery would put it back there, behind the starts of others. May be repeated.
    """
    instance = _instance()
    ws, queues = instance._sys_db.tables.workflow_status, instance._sys_db.tables.queues
    limits = "concurrency", "worker_concurrency", "partition_concurrency", "partition_worker_concurrency"
    limited = sa.select(queues.c.name).where(
        queues.c.rate_limit_max.is_not(None), *(queues.c[name].is_(None) for name in limits)
    )
    change = sa.update(ws).where(
        ws.c.status == "PENDING", ws.c.executor_id == executor_id, ws.c.queue_name.in_(limited)
    )  # fmt: skip
    with _alone(instance._sys_db) as connection:
        connection.execute(change.values(queue_name=queue))


def count_starts_again(executor_id: str, *, has_left: bool) -> None:
    """Count the starts of what a gone executor was executing from zero where a step was recorded since the last one.

    DBOS gives a workflow up after so many starts, whether it came on or not. `has_left`: the executor ended by itself,
    and none of its workflows had to do with it. May be repeated.
    """
    instance = _instance()
    ws, steps = instance._sys_db.tables.workflow_status, instance._sys_db.tables.operation_outputs
    came_on = sa.exists().where(
        steps.c.workflow_uuid == ws.c.workflow_uuid,
        steps.c.completed_at_epoch_ms >= sa.func.coalesce(ws.c.started_at_epoch_ms, ws.c.created_at),
    )
    change = sa.update(ws).where(ws.c.status == "PENDING", ws.c.executor_id == executor_id)
    with _alone(instance._sys_db) as connection:
        connection.execute((change if has_left else change.where(came_on)).values(recovery_attempts=0))


def executors_with_work() -> list[tuple[str, str]]:
    """Return id and application version of the executors that execute workflows of this application, or did."""
    instance = _instance()
    ws, application = instance._sys_db.tables.workflow_status, instance._sys_db.app_name
    query = sa.select(ws.c.executor_id, ws.c.application_version).distinct()
    query = query.where(
        ws.c.status == "PENDING",
        ws.c.application_name == application,
        ws.c.application_version.startswith(f"{application}:", autoescape=True),
    )
    with _alone(instance._sys_db) as connection:
        return [(row[0], row[1]) for row in connection.execute(query)]


def cancelled_among(workflow_ids: Iterable[str]) -> set[str]:
    """Return which of these workflows are cancelled; blocks on one query.

    DBOS's own list of them has a parameter for each, which costs a busy process more than the query.
    """
    with _alone(_instance()._sys_db) as connection:
        return {row[0] for row in connection.exec_driver_sql(_CANCELLED, {"workflows": list(workflow_ids)})}


def pending_of_executor(executor_id: str) -> int:
    """Return how many workflows of an executor are pending, of any application version; at most 1 is counted."""
    found = DBOS.list_workflows(status="PENDING", executor_id=executor_id, limit=1, load_input=False, load_output=False)
    return len(found)


def active_workflow_ids() -> list[str]:
    """Return the ids of the workflows that execute in this process now."""
    return _instance()._active_workflows_set.activeList()


def note_tick(client: DBOSClient, schedule: str, tick: datetime) -> None:
    """Note that a tick of a schedule was started, as DBOS does for those that it starts; blocks."""
    client._sys_db.update_last_fired_at(schedule, tick.isoformat())


def stop_taking_work() -> None:
    """Stop the queues, schedules and recovery of this process; running workflows go on."""
    instance = _instance()
    for event in instance.background_thread_stop_events:
        event.set()


def separate_tool_threads(tool_threads: int) -> None:
    """Make the default executor of DBOS's loops one that has threads for blocking tools; after the launch.

    DBOS sets its shared executor on the running loop again at every step.
    """
    instance = _instance()
    instance._shared_executor_field = SortingExecutor(instance._executor, tool_threads=tool_threads)


def executor_pool() -> Any:
    """Return the thread pool in which DBOS reads and writes checkpoints."""
    return _instance()._executor


def system_engine() -> Engine:
    """Return the engine with which DBOS reads and writes; for counting statements."""
    return _instance()._sys_db.engine


def stream_ends(connection: sa.Connection, workflow_ids: Iterable[str]) -> dict[str, int]:
    """Return the number of the next entry of the event stream of each of these workflows that has any entry.

    DBOS reads streams only value by value, and not past the gaps that a fork leaves where steps ran in parallel.
    """
    streams = _STREAMS
    query = sa.select(streams.c.workflow_uuid, sa.func.max(streams.c.offset) + 1).where(
        streams.c.workflow_uuid.in_(list(workflow_ids)),
        streams.c.key == STREAM_KEY,
        streams.c.value != dbos_sys_db._serialized_stream_closed_sentinel,
    )
    return {row[0]: row[1] for row in connection.execute(query.group_by(streams.c.workflow_uuid))}


def is_constructed() -> bool:
    """Whether a DBOS instance exists in this process."""
    return dbos_dbos._dbos_global_instance is not None


def is_launched() -> bool:
    """Whether the DBOS instance of this process is launched."""
    instance = dbos_dbos._dbos_global_instance
    return instance is not None and instance._launched


def configured_database_url() -> str | None:
    """Return the system database url of the DBOS instance that the program itself has made, if any."""
    instance = dbos_dbos._dbos_global_instance
    return instance._config.get("system_database_url") if instance is not None else None


async def _in_pool(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Return the result of `function`, called in DBOS's pool in a copy of this task's context."""
    call = functools.partial(contextvars.copy_context().run, function, *arguments, **named)
    return await asyncio.get_running_loop().run_in_executor(_instance()._executor, call)


def _journal_of(instance: DBOS) -> _Journal:
    if _journal is None or _journal[0] is not instance:
        shorten_ways(instance._sys_db.engine.execution_options(isolation_level="AUTOCOMMIT"))
    assert _journal is not None
    return _journal[1]


def _value_of(recorded: RecordedResult, serializer: Any) -> Any:
    if (error := recorded["error"]) is not None:
        raise dbos_serialization.deserialize_exception(error, recorded["serialization"], serializer)
    return dbos_serialization.deserialize_value(recorded["output"], recorded["serialization"], serializer)


def _alone(journal: SystemDatabase) -> contextlib.AbstractContextManager[sa.Connection]:
    """Return a connection for single statements, without a transaction around them."""
    return journal.engine.execution_options(isolation_level="AUTOCOMMIT").connect()


def _instance() -> DBOS:
    return dbos_dbos._get_dbos_instance()


def _check(function: Callable[..., Any], parameters: list[str]) -> None:
    found = list(inspect.signature(function).parameters)
    if found != parameters:
        raise ImportError(
            f"{function.__module__}.{function.__qualname__} takes {found}, expected {parameters}: this version of "
            "timestep works with dbos>=3.4,<3.5; install that"
        )


if (_columns := {column.name for column in SystemSchema.operation_outputs.c}) != _OUTPUT_COLUMNS:
    raise ImportError(
        f"A step's row of DBOS has the columns {sorted(_columns)}, expected {sorted(_OUTPUT_COLUMNS)}: this version of "
        "timestep works with dbos>=3.4,<3.5; install that"
    )

_check(dbos_dbos._SharedExecutor.__init__, ["self", "executor"])
_check(dbos_context.get_local_dbos_context, [])
_check(dbos_context._set_local_dbos_context, ["ctx"])
_check(dbos_recovery.recover_pending_workflows, ["dbos", "executor_ids"])
_check(DBOSContext.snapshot_step_ctx, ["self", "reserve_sleep_id"])
_check(StepReservation._claim, ["self"])
_check(StepReservation.__init__, ["self", "step_ctx"])
_check(dbos_context.EnterDBOSStepCtx.__init__, ["self", "attributes", "ctx"])
_check(SystemDatabase.check_operation_execution, ["self", "workflow_id", "function_id", "function_name", "owner_key"])
_check(SystemDatabase.record_operation_result, ["self", "result", "completed_at_epoch_ms", "owner_xid", "owner_key"])
_check(SystemDatabase.update_last_fired_at, ["self", "name", "last_fired_at"])
_check(dbos_serialization.deserialize_value, ["serialized_value", "serialization", "serializer"])
_check(dbos_serialization.deserialize_exception, ["serialized_value", "serialization", "serializer"])
