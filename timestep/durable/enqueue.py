"""Queue a run for any executor: DBOS's queues, and a handle that works in every process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from agents import Agent, RunConfig, RunErrorHandlers

from timestep import home_loop
from timestep.client import queues as desk
from timestep.client.queues import OnDuplicate, queued_run
from timestep.durable.handle import RunHandle
from timestep.durable.process.engine import engine, ensure_engine
from timestep.durable.process.threads import run_in_thread
from timestep.durable.segment.request import build_request, take_code
from timestep.durable.start import continued_run, entry_of, given_input, session_of
from timestep.durable.states.claim import claimed
from timestep.durable.states.origin import Input, Origin
from timestep.durable.states.resume import continue_run
from timestep.errors import InvalidInputError
from timestep.records import OneAtATime, QueuedRun, RunLimits
from timestep.settings import current_settings


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
    error_handlers: RunErrorHandlers[Any] | None = None,
    conversation_id: str | None = None,
    previous_response_id: str | None = None,
    auto_previous_response_id: bool = False,
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
    home_loop.enter()
    entry = entry_of(agent if agent is not None else agent_id)
    given = given_input(input_items)
    if (run_id := continued_run(given, workflow_id=workflow_id, branch=branch)) is not None:
        take_code(entry, run_config)
        ensure_engine()
        run_in_thread(lambda: continue_run(given, agent=entry.agent.name, is_queued=True))
        return RunHandle(run_id)
    request = build_request(
        entry,
        given,
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
        error_handlers=error_handlers,
        conversation_id=conversation_id,
        previous_response_id=previous_response_id,
        auto_previous_response_id=auto_previous_response_id,
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
    elsewhere = None if branch else given.snapshot_elsewhere
    ensure_engine()
    return RunHandle(run_in_thread(lambda: _enqueue(queued, elsewhere, on_duplicate)))


def _enqueue(queued: QueuedRun, elsewhere: Origin | None, on_duplicate: OnDuplicate) -> str:
    if elsewhere is not None:
        return asyncio.run(_enqueue_claimed(queued, elsewhere, on_duplicate))
    return desk.enqueue_run(engine().connector, queued, on_duplicate=on_duplicate)


async def _enqueue_claimed(queued: QueuedRun, elsewhere: Origin, on_duplicate: OnDuplicate) -> str:
    async with claimed(elsewhere, by=queued.request.run_id):
        return await asyncio.to_thread(_enqueue, queued, None, on_duplicate)
