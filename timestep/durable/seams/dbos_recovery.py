# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
"""Give the workflows of gone executors and versions to others; no public name of DBOS does.

The necessary names are checked when this module is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import dbos._recovery as dbos_recovery
import sqlalchemy as sa
from dbos import DBOS, DBOSClient
from dbos._sys_db import SystemDatabase
from dbos._utils import INTERNAL_QUEUE_NAME

from timestep.durable.seams.dbos_sdk import instance_of_process
from timestep.durable.seams.release_check import DBOS_RELEASE
from timestep.ids import DBOS_SCHEMA

_CANCELLED = f"""
select workflow_uuid from {DBOS_SCHEMA}.workflow_status
where workflow_uuid = any(%(workflows)s::text[]) and status = 'CANCELLED'
"""


def recover_executors(executor_ids: Iterable[str]) -> int:
    """Put the pending workflows of gone executors back on the internal queue; return how many.

    The public way (`resume_workflows`) resets attempts, deadline and queue. Rows of this process's application
    version only. Harmless when repeated.
    """
    handles = dbos_recovery.recover_pending_workflows(instance_of_process(), list(executor_ids))
    return len(handles)


def idle_workflows(executor_id: str) -> set[str]:
    """Return the workflows of this executor that nothing executes: just claimed and not begun, or lost; blocks."""
    found = DBOS.list_workflows(status="PENDING", executor_id=executor_id, load_input=False, load_output=False)
    return {workflow.workflow_id for workflow in found} - set(active_workflow_ids())


def recover_lost(executor_id: str, workflow_ids: Iterable[str]) -> None:
    """Put workflows of this executor that nothing executes back on the internal queue."""
    for workflow_id in workflow_ids:
        instance_of_process()._sys_db.reenqueue_for_recovery(workflow_id, [executor_id], INTERNAL_QUEUE_NAME)


def give_back(executor_id: str, owned: Collection[tuple[str, str]], queue: str) -> None:
    """Put workflows that this executor has left in the middle back on their queues, in the name of their executions.

    `owned` are the ids with the tokens of the executions: one that owns its workflow no more changes nothing. Those of
    no queue, or of one that limits nothing but starts, go on `queue`. May be repeated.
    """
    instance = instance_of_process()
    ws, journal = instance._sys_db.tables.workflow_status, instance._sys_db
    change = sa.update(ws).where(
        sa.tuple_(ws.c.workflow_uuid, ws.c.owner_xid).in_(list(owned)),
        ws.c.status == "PENDING",
        ws.c.executor_id == executor_id,
    )
    stays = sa.and_(ws.c.queue_name.is_not(None), ws.c.queue_name.not_in(_limited_in_starts(instance)))
    with _alone(journal) as connection:
        connection.execute(
            change.values(
                status="ENQUEUED",
                owner_xid=None,
                started_at_epoch_ms=None,
                updated_at=journal._now_ms_sql(),
                queue_name=sa.case((stays, ws.c.queue_name), else_=queue),
            )
        )


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
    instance = instance_of_process()
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
    instance = instance_of_process()
    ws = instance._sys_db.tables.workflow_status
    change = sa.update(ws).where(
        ws.c.status == "PENDING", ws.c.executor_id == executor_id, ws.c.queue_name.in_(_limited_in_starts(instance))
    )  # fmt: skip
    with _alone(instance._sys_db) as connection:
        connection.execute(change.values(queue_name=queue))


def _limited_in_starts(instance: DBOS) -> sa.Select[tuple[str]]:
    queues = instance._sys_db.tables.queues
    limits = "concurrency", "worker_concurrency", "partition_concurrency", "partition_worker_concurrency"
    return sa.select(queues.c.name).where(
        queues.c.rate_limit_max.is_not(None), *(queues.c[name].is_(None) for name in limits)
    )


def count_starts_again(executor_id: str, *, has_left: bool) -> None:
    """Count the starts of what a gone executor was executing from zero where a step was recorded since the last one.

    DBOS gives a workflow up after so many starts, whether it came on or not. `has_left`: the executor ended by itself,
    and none of its workflows had to do with it. May be repeated.
    """
    instance = instance_of_process()
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
    instance = instance_of_process()
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
    with _alone(instance_of_process()._sys_db) as connection:
        return {row[0] for row in connection.exec_driver_sql(_CANCELLED, {"workflows": list(workflow_ids)})}


def pending_of_executor(executor_id: str) -> int:
    """Return how many workflows of an executor are pending, of any application version; at most 1 is counted."""
    found = DBOS.list_workflows(status="PENDING", executor_id=executor_id, limit=1, load_input=False, load_output=False)
    return len(found)


def active_workflow_ids() -> list[str]:
    """Return the ids of the workflows that execute in this process now."""
    return instance_of_process()._active_workflows_set.activeList()


def _alone(journal: SystemDatabase) -> contextlib.AbstractContextManager[sa.Connection]:
    """Return a connection for single statements, without a transaction around them."""
    return journal.engine.execution_options(isolation_level="AUTOCOMMIT").connect()


DBOS_RELEASE.check(dbos_recovery.recover_pending_workflows, ["dbos", "executor_ids"])
DBOS_RELEASE.check(
    SystemDatabase.reenqueue_for_recovery, ["self", "workflow_id", "executor_ids", "recovery_queue_name"]
)
