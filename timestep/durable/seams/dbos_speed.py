# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
"""Look at the journal and record steps in fewer statements than DBOS needs. Optional: `dbos_journal` does without."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import dbos._context as dbos_context
import dbos._serialization as dbos_serialization
from dbos import DBOS, StepReservation
from dbos._context import DBOSContext
from dbos._schemas.system_database import SystemSchema
from dbos._sys_db import OperationResultInternal, RecordedResult, SystemDatabase
from sqlalchemy import Engine

from timestep.durable.seams.group_commit import Rounds
from timestep.durable.seams.known_steps import Known
from timestep.durable.seams.release_check import DBOS_RELEASE
from timestep.ids import DBOS_SCHEMA

T = TypeVar("T")

LARGEST_TOGETHER = 100_000
"""Characters of a result up to which it is recorded together with others; a larger one would make them wait."""


class ShortWays:
    """The short ways to DBOS's rows of one process: looks and records of many steps in one statement each.

    What they do not settle goes DBOS's own way, which waits, tries again and says what is wrong.

    Args:
        instance: The launched DBOS of this process.
        engine: Its connections are in autocommit.
    """

    def __init__(self, instance: DBOS, engine: Engine) -> None:
        self._system, self._pool, self._serializer = instance._sys_db, instance._executor, instance._serializer
        self._slow_reader = copy.copy(self._system)
        self._slow_reader.engine = engine.execution_options(**self._system.engine.get_execution_options())
        self._looks = Rounds(self._owned, self._pool)
        self._records = Rounds(self._record, self._pool)
        self._engine, self._application = engine, self._system.app_name

    async def run_reserved(
        self, reservation: StepReservation, name: str, body: Callable[[], Awaitable[tuple[T, str]]], known: Known
    ) -> T:
        """Run `body` as the step of a reservation and return its result, the recorded or the just made one.

        `body` returns its result and the text that the journal's serializer makes of it. This is what DBOS does for a
        step, cheaper: `StepReservation.run_async` goes through the executor three times, once for nothing, and makes
        six statements for each step, where one does for a step, and one for many when many runs record theirs at once.
        """
        reservation._claim()
        context, started_at = reservation._step_ctx, _milliseconds()
        await DBOS._configure_asyncio_thread_pool()  # for what the body does in threads
        with dbos_context.EnterDBOSStepCtx({"name": name, "operationType": "step"}, context):
            recorded = await self._look(context, name, known)
            if recorded is not None:
                return self._value_of(recorded)
            try:
                value, text = await body()
                await self._keep(context, name, text, started_at, known)
            except Exception as error:
                record = functools.partial(self._record_alone, context, name, started_at=started_at)
                await self._in_pool(record, error=error)
                raise
            return value

    async def _look(self, context: DBOSContext, name: str, known: Known) -> RecordedResult | None:
        workflow_id, step_id, owner = context.workflow_id, context.function_id, context.owner_xid
        if known.is_new(step_id):
            if known.is_owned_still:
                return None
            if owner is not None and (at := await self._looks.settle((workflow_id, owner))) is not None:
                known.is_owned(at)
                return None
        return await self._in_pool(self._slow_reader.check_operation_execution, workflow_id, step_id, name)

    async def _keep(self, context: DBOSContext, name: str, output: str, started_at: int, known: Known) -> None:
        completed_at = _milliseconds()
        if context.owner_xid is not None and len(output) <= LARGEST_TOGETHER:
            row = _Record(
                workflow_id=context.workflow_id,
                owner=context.owner_xid,
                step_id=context.function_id,
                name=name,
                output=output,
                started_at=started_at,
                completed_at=completed_at,
            )
            if (at := await self._records.settle(row)) is not None:
                known.is_owned(at)
                return
        # The same time, so that a round that was committed and never answered is known as this very record.
        record = functools.partial(self._record_alone, context, name, started_at=started_at)
        await self._in_pool(record, output=output, completed_at=completed_at)

    def _record_alone(
        self,
        context: DBOSContext,
        name: str,
        *,
        started_at: int,
        output: str | None = None,
        error: Exception | None = None,
        completed_at: int | None = None,
    ) -> None:
        result: OperationResultInternal = {
            "workflow_uuid": context.workflow_id,
            "function_id": context.function_id,
            "function_name": name,
            "output": output,
            "error": self._serializer.serialize(error) if error is not None else None,
            "serialization": self._serializer.name(),
            "started_at_epoch_ms": started_at,
            "child_workflow_id": None,
        }
        self._system.record_operation_result(result, completed_at_epoch_ms=completed_at)

    def _value_of(self, recorded: RecordedResult) -> Any:
        serialization = recorded["serialization"]
        if (error := recorded["error"]) is not None:
            raise dbos_serialization.deserialize_exception(error, serialization, self._serializer)
        return dbos_serialization.deserialize_value(recorded["output"], serialization, self._serializer)

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
        given |= {"application": self._application, "serialization": self._serializer.name()}
        with self._engine.connect() as connection:
            recorded = {(row[0], row[1]) for row in connection.exec_driver_sql(_RECORD, given)}
        return {number for number, each in enumerate(asked) if (each.workflow_id, each.step_id) in recorded}

    async def _in_pool(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Return the result of `function`, called in DBOS's pool in a copy of this task's context."""
        call = functools.partial(contextvars.copy_context().run, function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _milliseconds() -> int:
    return int(time.time() * 1000)


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


DBOS_RELEASE.check_columns(SystemSchema.operation_outputs, _OUTPUT_COLUMNS, are_all=True)
DBOS_RELEASE.check_columns(SystemSchema.workflow_status, ["workflow_uuid", "owner_xid", "status"])
DBOS_RELEASE.check(StepReservation._claim, ["self"])
DBOS_RELEASE.check(StepReservation.__init__, ["self", "step_ctx"])
DBOS_RELEASE.check_attributes(StepReservation(DBOSContext()), ["_step_ctx"])
DBOS_RELEASE.check(DBOS._configure_asyncio_thread_pool, [])
DBOS_RELEASE.check(dbos_context.EnterDBOSStepCtx.__init__, ["self", "attributes", "ctx"])
DBOS_RELEASE.check(
    SystemDatabase.check_operation_execution, ["self", "workflow_id", "function_id", "function_name", "owner_key"]
)
DBOS_RELEASE.check(
    SystemDatabase.record_operation_result, ["self", "result", "completed_at_epoch_ms", "owner_xid", "owner_key"]
)
DBOS_RELEASE.check(dbos_serialization.deserialize_value, ["serialized_value", "serialization", "serializer"])
DBOS_RELEASE.check(dbos_serialization.deserialize_exception, ["serialized_value", "serialization", "serializer"])
