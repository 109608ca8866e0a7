# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false
"""What Timestep needs of DBOS itself and no public name gives: contexts, owners, threads, the end of a stream.

The necessary names are checked when this module is imported. Each entry says why the public interface does not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

import dbos._context as dbos_context
import dbos._dbos as dbos_dbos
import dbos._sys_db as dbos_sys_db
import sqlalchemy as sa
from dbos import DBOS, DBOSClient
from dbos._context import DBOSContext
from dbos._schemas.system_database import SystemSchema
from dbos._sys_db import SystemDatabase
from sqlalchemy import Engine

from timestep.durable.seams.release_check import DBOS_RELEASE
from timestep.durable.seams.tool_threads import SortingExecutor
from timestep.errors import UnsupportedError
from timestep.ids import DBOS_SCHEMA, SEGMENT_MARK, STREAM_KEY

LARGEST_STEP_ID = 2**31 - 1
"""Step ids are INT4 columns."""

LONGEST_TAKE_SECONDS = 5.0
"""How long a stop waits for a queue that is just taking work: its start would find no event loop."""

T = TypeVar("T")

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


def owner_token() -> str | None:
    """Return the token with which this execution owns its workflow."""
    context = dbos_context.get_local_dbos_context()
    return context.owner_xid if context is not None else None


def attempts_of_workflow() -> int:
    """Return how often the workflow of this task was started; blocks on one query."""
    context = dbos_context.get_local_dbos_context()
    if context is None:
        return 1
    row = functools.partial(
        DBOS.list_workflows, workflow_ids=[context.workflow_id], load_input=False, load_output=False
    )
    found = contextvars.Context().run(row)  # in the workflow's own context the look would be a step
    return (found[0].recovery_attempts if found else None) or 1


def record_outcome(workflow_id: str, output: Any, *, owner: str | None) -> None:
    """Note that a workflow succeeded, if this execution still owns it; blocks."""
    instance = instance_of_process()
    instance._sys_db.update_workflow_outcome(
        workflow_id, "SUCCESS", output=instance._serializer.serialize(output), owner_xid=owner
    )


def note_tick(client: DBOSClient, schedule: str, tick: datetime) -> None:
    """Note that a tick of a schedule was started, as DBOS does for those that it starts; blocks."""
    client._sys_db.update_last_fired_at(schedule, tick.isoformat())


def stop_taking_work() -> None:
    """Stop the queues, schedules and recovery of this process; running workflows go on."""
    instance = instance_of_process()
    for event in instance.background_thread_stop_events:
        event.set()


def wait_for_what_is_taken() -> None:
    """Wait until what the queues take has begun; after `stop_taking_work`. Blocks."""
    for thread in threading.enumerate():
        if thread.name.startswith("queue-worker-"):
            with contextlib.suppress(RuntimeError):  # it is about to begin, sees that it is to stop, and takes nothing
                thread.join(timeout=LONGEST_TAKE_SECONDS)


def separate_tool_threads(tool_threads: int) -> None:
    """Make the default executor of DBOS's loops one that has threads for blocking tools; after the launch.

    DBOS sets its shared executor on the running loop again at every step.
    """
    instance = instance_of_process()
    instance._shared_executor_field = SortingExecutor(instance._executor, tool_threads=tool_threads)


def own_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop in which DBOS starts what it takes from queues."""
    return instance_of_process()._background_event_loop._loop


def has_own_loop_ended() -> bool:
    """Whether the event loop in which DBOS starts what it takes from queues has ended: nothing is started any more."""
    instance = dbos_dbos._dbos_global_instance
    loop = instance._background_event_loop._loop if instance is not None else None
    return loop is not None and loop.is_closed()


def forget_ended_loop() -> None:
    """Let DBOS be destroyed when its event loop has ended: it would wait for a task in that loop."""
    if has_own_loop_ended():
        instance_of_process()._background_event_loop._running = False


def executor_pool() -> Any:
    """Return the thread pool in which DBOS reads and writes checkpoints."""
    return instance_of_process()._executor


def autocommit_engine() -> Engine:
    """Return an engine on DBOS's own connections that makes single statements, without a transaction around them."""
    return instance_of_process()._sys_db.engine.execution_options(isolation_level="AUTOCOMMIT")


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


def configured_database_url() -> str | None:
    """Return the system database url of the DBOS instance that the program itself has made, if any."""
    instance = dbos_dbos._dbos_global_instance
    return instance._config.get("system_database_url") if instance is not None else None


def instance_of_process() -> DBOS:
    """Return the DBOS instance of this process."""
    return dbos_dbos._get_dbos_instance()


DBOS_RELEASE.check(dbos_dbos._get_dbos_instance, [])
DBOS_RELEASE.check(dbos_dbos._SharedExecutor.__init__, ["self", "executor"])
DBOS_RELEASE.check(dbos_context.get_local_dbos_context, [])
DBOS_RELEASE.check(dbos_context._set_local_dbos_context, ["ctx"])
DBOS_RELEASE.check_attributes(DBOSContext(), ["workflow_id", "function_id", "owner_xid", "context_spans"])
DBOS_RELEASE.check(DBOSContext.snapshot_step_ctx, ["self", "reserve_sleep_id"])
DBOS_RELEASE.check(SystemDatabase.update_last_fired_at, ["self", "name", "last_fired_at"])
DBOS_RELEASE.check(
    SystemDatabase.update_workflow_outcome, ["self", "workflow_id", "status", "output", "error", "owner_xid"]
)
