"""Queue a run for any executor: DBOS's queues, and a handle that works in every process."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from typing import Any

from agents import Agent, RunConfig
from dbos import DBOS

from timestep.durable.claim import claimed
from timestep.durable.engine import engine, ensure_engine
from timestep.durable.origin import Origin, snapshot_elsewhere
from timestep.durable.request import build_request
from timestep.durable.result import DurableRunResult
from timestep.durable.resume import continue_run
from timestep.durable.start import Input, continued, entry_of, given, session_of, wait_run
from timestep.durable.threads import run_in_thread
from timestep.errors import InvalidInputError, RunInputMismatchError
from timestep.ids import DEFAULT_QUEUE, SEGMENT_QUEUE
from timestep.records import RunLimits, RunRequest, RunStatus
from timestep.runs import digest_of, enqueue_run
from timestep.store.runs import get_stored_run

POLLING_SECONDS = 1.0
"""Wait between two looks at a queue. A look is about ten statements, from every executor."""

SEGMENT_POLLING_SECONDS = 0.25
"""The same for segments that go on: a person may be waiting."""

DEFAULT_LIMIT = {"limit": 50, "period": 60}
"""Starts of the default queue: at most 50 in 60 seconds."""


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
) -> RunHandle:
    """Queue a run and return its handle; the run is stored when this returns. May be awaited too.

    Any executor that knows the agent takes it, this process included. Parameters as in `run_agent_workflow`, and:

    Args:
        queue_name: A DBOS queue, made on first use; the default one starts at most 50 runs in 60 s.
        priority: 1 is the highest; larger numbers run later.
        deduplication_id: Refused while another run with it is queued or running.
        delay_seconds: Start no earlier than this many seconds from now.

    Raises:
        InvalidInputError: as in `run_agent_workflow`.
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
        limits=limits,
        branch=branch,
    )
    elsewhere = None if branch else snapshot_elsewhere(input_items)
    ensure_engine()
    run_in_thread(
        lambda: _enqueue(
            request,
            elsewhere,
            queue=queue_name or DEFAULT_QUEUE,
            priority=priority,
            deduplication_id=deduplication_id,
            delay_seconds=delay_seconds,
        )
    )
    return RunHandle(request.run_id)


def _enqueue(request: RunRequest, elsewhere: Origin | None, *, queue: str, **options: Any) -> None:
    if elsewhere is not None:
        asyncio.run(_enqueue_claimed(request, elsewhere, queue=queue, **options))
        return
    ensure_queue(queue)
    digest = digest_of(request)
    if not engine().database.run_sync(
        enqueue_run, engine().client, request, input_digest=digest, queue=queue, **options
    ):
        stored = engine().database.run_sync(get_stored_run, request.run_id)
        if stored.input_digest != digest:
            raise RunInputMismatchError(
                f"The run {request.run_id!r} is known with another agent, input, session or context."
            )


async def _enqueue_claimed(request: RunRequest, elsewhere: Origin, **options: Any) -> None:
    async with claimed(elsewhere, by=request.run_id):
        await asyncio.to_thread(_enqueue, request, None, **options)


_known: set[str] = set()


def ensure_queue(name: str) -> None:
    """Make a queue if it is not there; one that is there keeps its settings. Not under a running event loop."""
    if name in _known:
        return
    limiter: Any = DEFAULT_LIMIT if name == DEFAULT_QUEUE else None
    seconds = SEGMENT_POLLING_SECONDS if name == SEGMENT_QUEUE else POLLING_SECONDS
    DBOS.register_queue(name, limiter=limiter, polling_interval_sec=seconds, on_conflict="never_update")
    _known.add(name)


def ensure_own_queues() -> None:
    """Make the queues that the engine itself uses."""
    _known.clear()
    ensure_queue(DEFAULT_QUEUE)
    ensure_queue(SEGMENT_QUEUE)


async def _returning(value: Any) -> Any:
    return value
