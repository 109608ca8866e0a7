"""Queue a run for any executor: DBOS's queues, and a handle that works in every process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Mapping
from typing import Any

from agents import Agent, RunConfig
from dbos import DBOS

from timestep.client import queues as desk
from timestep.client.queues import OnDuplicate, queued_run
from timestep.durable.process.engine import engine, ensure_engine, is_engine_launched
from timestep.durable.result import DurableRunResult
from timestep.durable.seams.tool_threads import run_in_thread
from timestep.durable.segment.request import build_request
from timestep.durable.start import Input, continued, entry_of, given, session_of, wait_run
from timestep.durable.states.claim import claimed
from timestep.durable.states.origin import Origin, snapshot_elsewhere
from timestep.durable.states.resume import continue_run
from timestep.errors import InvalidInputError, SettingsError
from timestep.ids import DEFAULT_QUEUE, SEGMENT_QUEUE, check_queue_name
from timestep.records import OneAtATime, QueuedRun, QueueLimits, RunLimits, RunStatus
from timestep.settings import current_settings
from timestep.store.runs import get_stored_run

log = logging.getLogger("timestep")


class RunHandle:
    """A queued run. Works in any process; `await handle` returns the handle itself."""

    def __init__(self, run_id: str) -> None:
        self.workflow_id = run_id
        self.run_id = run_id

    def __await__(self) -> Generator[Any, None, RunHandle]:
        return _returning(self).__await__()

    def get_result(self) -> PendingResult:
        """Return the result: `await` it, or read a field of it, which blocks until the run has ended."""
        return PendingResult(self.run_id)

    def get_status(self) -> Status:
        """Return the run's status now, one of the words of `RunStatus`; may be awaited too."""
        return Status(engine().database.run_sync(get_stored_run, self.run_id).run.status)

    def get_workflow_id(self) -> str:
        """Return the run's id."""
        return self.run_id


class PendingResult:
    """A result that is awaited, or that blocks when it is read: that of the run's end, over all interruptions."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._result: DurableRunResult | None = None

    def __await__(self) -> Generator[Any, None, DurableRunResult]:
        return wait_run(self._run_id).__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._read(), name)

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._read()

    def _read(self) -> DurableRunResult:
        if self._result is None:
            self._result = run_in_thread(lambda: asyncio.run(wait_run(self._run_id)))
        return self._result


class Status(str):
    """A status word that may be awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, RunStatus]:
        return _returning(str(self)).__await__()


def queue_agent_workflow(
    agent: Agent[Any] | str | None = None,
    input_items: Input | None = None,
    session: Any = None,
    stream: bool = False,
    result_processor: None = None,
    state_store: Any = None,
    session_id: str | None = None,
    queue_name: str | None = None,
    workflow_id: str | None = None,
    timeout_seconds: float | None = None,
    priority: int | None = None,
    deduplication_id: str | None = None,
    delay_seconds: float | None = None,
    *,
    agent_id: str | None = None,
    context: Any = None,
    max_turns: int | None = None,
    run_config: RunConfig | Mapping[str, Any] | None = None,
    limits: RunLimits | None = None,
    branch: bool = False,
    model: str | None = None,
    one_at_a_time: OneAtATime | None = "session",
    on_duplicate: OnDuplicate = "raise",
    partition_key: str | None = None,
) -> RunHandle:
    """Queue a run and return its handle; the run is stored when this returns. May be awaited too.

    Any executor that knows the agent takes it, this process included. Parameters as in `run_agent_workflow`, and:

    Args:
        queue_name: A DBOS queue, made on first use; the default one starts at most 50 runs in 60 s.
        priority: From 1, the highest, on; larger numbers start later. One without it starts before all others.
        deduplication_id: In one queue no two runs have it that have not ended; one that waits for a person has not.
        delay_seconds: Start no earlier than this many seconds from now.
        one_at_a_time: With "session" the queued runs of a session run one after the other, in the order of the calls.
            One that is interrupted, or whose delay is not over, lets the others pass; it goes on before those that have
            not started. Runs that are started directly take no part. None lets this run start whatever the others do.
        on_duplicate: When another run has the deduplication id: "raise", or "return" the handle of that one.
        partition_key: Partition of a queue with limits for each partition; such a queue needs one.

    Raises:
        InvalidInputError: as in `run_agent_workflow`, or one of these is malformed.
        RunInputMismatchError: the id is known with another input.
        RunDuplicatedError: another run has the deduplication id; its `run_id` says which.
        SnapshotAlreadyResumed: as in `run_agent_workflow`.
    """
    if result_processor is not None:
        raise InvalidInputError(
            "A queued run calls no result_processor: it may end in another process.",
            hint="Await `handle.get_result()` and process what it returns.",
        )
    entry = entry_of(agent if agent is not None else agent_id)
    if (origin := continued(input_items, workflow_id=workflow_id, branch=branch)) is not None:
        ensure_engine()
        state: Any = input_items
        run_in_thread(lambda: continue_run(state, origin, agent=entry.agent.name, is_queued=True))
        return RunHandle(origin.run_id or "")
    request = build_request(
        entry,
        given(input_items),
        session=session,
        session_id=session_id if session_id is not None else session_of(state_store),
        workflow_id=workflow_id,
        context=context,
        max_turns=max_turns,
        run_config=run_config,
        timeout_seconds=timeout_seconds,
        stream=stream,
        model=model,
        limits=limits,
        branch=branch,
    )
    queued = queued_run(
        request,
        application=current_settings().name,
        queue=queue_name,
        one_at_a_time=one_at_a_time,
        priority=priority,
        deduplication_id=deduplication_id,
        delay_seconds=delay_seconds,
        partition_key=partition_key,
    )
    elsewhere = None if branch else snapshot_elsewhere(input_items)
    ensure_engine()
    return RunHandle(run_in_thread(lambda: _enqueue(queued, elsewhere, on_duplicate)))


def create_queue(
    name: str,
    *,
    global_concurrency: int | None = None,
    worker_concurrency: int | None = None,
    partition_concurrency: int | None = None,
    rate_limit: int | None = None,
    rate_period_seconds: float = 60.0,
    polling_interval_seconds: float = 1.0,
) -> str:
    """Declare a queue, before or after the engine is launched, and return its name.

    The queue is a row: it stays, and every executor of the application takes runs from it. Declared again with other
    limits it has those from then on, unless a newer version of the application runs; a paused queue stays paused.
    Limits as in `QueueLimits`.

    Raises:
        InvalidInputError: the name or a limit is malformed, or the queue is another application's.
    """
    check_queue_name(name)
    limits = QueueLimits(
        global_concurrency=global_concurrency,
        worker_concurrency=worker_concurrency,
        partition_concurrency=partition_concurrency,
        rate_limit=rate_limit,
        rate_period_seconds=rate_period_seconds,
        polling_interval_seconds=polling_interval_seconds,
    )
    if is_engine_launched():
        run_in_thread(lambda: _declare(name, limits))
    else:
        _declared[name] = limits
    return name


_declared: dict[str, QueueLimits] = {}
"""Queues that were declared before the engine was launched."""


def make_queues() -> None:
    """Make the queues that the engine itself uses, those of the settings and those that were declared before.

    Raises:
        SettingsError: the database is another application's.
    """
    client = engine().client
    try:
        for name, limits in ((DEFAULT_QUEUE, desk.DEFAULT_LIMITS), (SEGMENT_QUEUE, desk.SEGMENT_LIMITS)):
            desk.register(client.register_queue, name, limits, on_conflict="never_update")
    except InvalidInputError as error:
        raise SettingsError(
            f"The application {engine().settings.name!r} cannot use the database {engine().database.display_url}: "
            f"{str(error.__cause__).partition('. ')[0]}.",
            hint="Each application has a database of its own: name another one in PG_CONNECTION_URI. If this one only "
            "has a new name, take the old one, `name` in `dbos-config.yaml`, or see `dbos rename-application --help`.",
        ) from error
    declared = {**engine().settings.queues, **_declared}
    _declared.clear()
    for name, limits in declared.items():
        _declare(name, limits)


def _declare(name: str, limits: QueueLimits) -> None:
    if desk.create_queue(engine().client, name, limits, replace=True, register_queue=DBOS.register_queue) == "changed":
        log.warning("The queue %r has other limits now: %s", name, limits)


def _enqueue(queued: QueuedRun, elsewhere: Origin | None, on_duplicate: OnDuplicate) -> str:
    if elsewhere is not None:
        return asyncio.run(_enqueue_claimed(queued, elsewhere, on_duplicate))
    return desk.enqueue_run(engine().database, engine().client, queued, on_duplicate=on_duplicate)


async def _enqueue_claimed(queued: QueuedRun, elsewhere: Origin, on_duplicate: OnDuplicate) -> str:
    async with claimed(elsewhere, by=queued.request.run_id):
        return await asyncio.to_thread(_enqueue, queued, None, on_duplicate)


async def _returning(value: Any) -> Any:
    return value
