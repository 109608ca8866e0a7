# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
"""Look at the journal and record steps in fewer statements than DBOS needs."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import dbos._context as dbos_context
import dbos._serialization as dbos_serialization
from dbos import DBOS, StepReservation
from dbos._schemas.system_database import SystemSchema
from dbos._sys_db import OperationResultInternal, RecordedResult, SystemDatabase
from sqlalchemy import Engine

from timestep.durable.seams.dbos_sdk import instance_of_process
from timestep.durable.seams.group_commit import Rounds
from timestep.durable.seams.release_check import DBOS_RELEASE
from timestep.ids import DBOS_SCHEMA

T = TypeVar("T")
_journal: tuple[DBOS, _Journal] | None = None
"""A DBOS instance, and the short ways to its rows."""


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
    instance, context = instance_of_process(), reservation._step_ctx
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
    _journal = (instance_of_process(), _Journal(instance_of_process(), engine))


def record_outcome(workflow_id: str, output: Any, *, owner: str | None) -> None:
    """Note that a workflow succeeded, if this execution still owns it; blocks."""
    instance = instance_of_process()
    instance._sys_db.update_workflow_outcome(
        workflow_id, "SUCCESS", output=instance._serializer.serialize(output), owner_xid=owner
    )


async def _in_pool(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Return the result of `function`, called in DBOS's pool in a copy of this task's context."""
    call = functools.partial(contextvars.copy_context().run, function, *arguments, **named)
    return await asyncio.get_running_loop().run_in_executor(instance_of_process()._executor, call)


def _journal_of(instance: DBOS) -> _Journal:
    if _journal is None or _journal[0] is not instance:
        shorten_ways(instance._sys_db.engine.execution_options(isolation_level="AUTOCOMMIT"))
    assert _journal is not None
    return _journal[1]


def _value_of(recorded: RecordedResult, serializer: Any) -> Any:
    if (error := recorded["error"]) is not None:
        raise dbos_serialization.deserialize_exception(error, recorded["serialization"], serializer)
    return dbos_serialization.deserialize_value(recorded["output"], recorded["serialization"], serializer)


DBOS_RELEASE.check_columns("A step's row", SystemSchema.operation_outputs, _OUTPUT_COLUMNS)
DBOS_RELEASE.check(StepReservation._claim, ["self"])
DBOS_RELEASE.check(StepReservation.__init__, ["self", "step_ctx"])
DBOS_RELEASE.check(dbos_context.EnterDBOSStepCtx.__init__, ["self", "attributes", "ctx"])
DBOS_RELEASE.check(
    SystemDatabase.check_operation_execution, ["self", "workflow_id", "function_id", "function_name", "owner_key"]
)
DBOS_RELEASE.check(
    SystemDatabase.record_operation_result, ["self", "result", "completed_at_epoch_ms", "owner_xid", "owner_key"]
)
DBOS_RELEASE.check(dbos_serialization.deserialize_value, ["serialized_value", "serialization", "serializer"])
DBOS_RELEASE.check(dbos_serialization.deserialize_exception, ["serialized_value", "serialization", "serializer"])
