"""The DBOS workflows.

`agent_run` is one segment of a run, `copy_segment` starts one from the journal of the segment before it, and
`scheduled_agent_run` is one tick of a schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any

from dbos import DBOS

from timestep.client.runs import copy_journal, request_of
from timestep.client.schedules import start_tick
from timestep.client.serializer import encode_error
from timestep.durable.journal.scope import Segment
from timestep.durable.journal.step import StepFailure, is_history_change
from timestep.durable.journal.step_events import begin_stream
from timestep.durable.journal.stream_writer import BURST, StreamWriter
from timestep.durable.process import closed_workflows
from timestep.durable.process.engine import engine, while_launched
from timestep.durable.process.gate import gate
from timestep.durable.process.registered_agents import RegisteredAgent, find_agent
from timestep.durable.process.segment_place import at_home
from timestep.durable.seams import dbos_recovery, dbos_sdk
from timestep.durable.seams.known_steps import Known
from timestep.durable.segment.close import closing_of
from timestep.durable.segment.outcome import NotReplayable, NotResumable, Outcome
from timestep.durable.segment.request import missing_code
from timestep.durable.segment.run import run_segment
from timestep.durable.steps.limits import limits_with
from timestep.errors import (
    AgentNotRegisteredError,
    ConfigurationMissingError,
    HistoryChangedError,
    RunCancelledError,
    RunStateError,
)
from timestep.ids import (
    WORKFLOW_AGENT_RUN,
    WORKFLOW_COPY_SEGMENT,
    WORKFLOW_SCHEDULED_RUN,
    run_of_segment,
    segment_id,
)
from timestep.store.runs import StoredRun, get_stored_run, mark_parked, model_of
from timestep.store.segments import Closing, StartedSegment, Used, close_segment, start_segment
from timestep.words import AGENT_NOT_REGISTERED, CONFIGURATION_MISSING, COPY, HISTORY_CHANGED, START_RUN, reason_of

MAX_RECOVERY_ATTEMPTS = 20
"""How often a segment may be dispatched before DBOS gives it up: what kills its process is not repeated for ever."""

_expected: dict[str, asyncio.Future[Outcome]] = {}
"""Outcomes that a caller in this process waits for, by workflow id."""


@contextlib.contextmanager
def expecting(workflow_id: str) -> Generator[asyncio.Future[Outcome]]:
    """Let the caller have the outcome of a segment that executes in this process, as it is, without a read."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    _expected[workflow_id] = future
    try:
        yield future
    finally:
        _expected.pop(workflow_id, None)


async def agent_run(work: dict[str, Any]) -> dict[str, Any]:
    """Execute one segment of a run.

    Steps, in order: in a foreign session `session_read`; those of the agent's turns, one kind a file of durable/steps;
    in a foreign session `session_write`. The start and the close are transactions of their own, harmless when repeated.
    After the close DBOS records that the stream is closed; only a copy of the journal could replay that, and leaves it
    out.
    """
    workflow_id = DBOS.workflow_id or ""
    run_id, number = run_of_segment(workflow_id)
    entry = find_agent(work["agent"])
    started = await _start(run_id, number, work, entry)
    if started.is_closed:
        if started.stored.run.status == "cancelled" and started.stored.closed_segment < number:
            await _give_up(workflow_id)
            raise RunCancelledError(f"The run {run_id!r} was cancelled.", run_id=run_id)
        if started.stored.run.status == "queued" and started.stored.closed_segment < number:
            await _give_up(workflow_id)  # somebody started it by hand; it is resumed when it has its session
            raise RunStateError(f"The run {run_id!r} waits for its session.", hint="It starts by itself.")
        return _summary(started, number)
    if entry is None:
        await _park(started.stored, workflow_id, reason=AGENT_NOT_REGISTERED)
        raise AgentNotRegisteredError(f"The executor {engine().executor_id} does not know the agent {work['agent']!r}.")
    await _check_configuration(entry, started.stored, workflow_id)
    segment = _segment(run_id, number, started)
    if segment.stream and number > 1:
        await engine().database.run_until_done(begin_stream, run_id, number)
    outcome = await _run(entry, started, segment, workflow_id)
    outcome, closing = _closing(entry, outcome, started, segment)
    await segment.writer.settle()  # who sees the segment closed may count its events
    with gate.held():  # a drain waits for the end of the stream: without it readers would wait for another executor
        if not await engine().database.run_until_done(close_segment, closing):
            await _check_closed(run_id, number)
        summary = {"run_id": run_id, "segment": number, "status": closing.status}
        closed_workflows.closed(workflow_id, summary)
        waiting = _expected.get(workflow_id)
        if waiting is not None and not waiting.done() and not closing.continues and not outcome.questions:
            with contextlib.suppress(RuntimeError):  # the loop of the caller has ended
                waiting.get_loop().call_soon_threadsafe(_settle, waiting, outcome)
        if segment.stream:  # wakes the readers, who look at the run's row
            await segment.writer.close()
    return summary


async def scheduled_agent_run(scheduled_at: datetime, context: dict[str, Any]) -> str | None:
    """Start the run of one tick and return its id; None when it came late and is not caught up with.

    One step, `start_run`, idempotent by the id.
    """
    workflow_id = DBOS.workflow_id or ""

    def start() -> str | None:
        return start_tick(
            engine().connector,
            context,
            scheduled_at,
            workflow_id=workflow_id,
            application=engine().settings.name,
        )

    return await DBOS.run_step_async({"name": START_RUN}, start)


async def copy_segment(work: dict[str, Any]) -> str:
    """Start a segment from a copy of the journal of the one before it, and return its id.

    One step, `copy`, idempotent by the id of the new workflow.
    """
    run_id, number = work["run_id"], work["segment"]

    def copy() -> str:
        return copy_journal(engine().connector, run_id, number)

    return await DBOS.run_step_async({"name": COPY}, copy)


_workflows: dict[str, Callable[..., Any]] = {}


def register_workflows() -> None:
    """Make the workflows known to DBOS; before it is launched, and again after its registry was destroyed."""
    _workflows[WORKFLOW_AGENT_RUN] = DBOS.workflow(
        name=WORKFLOW_AGENT_RUN, max_recovery_attempts=MAX_RECOVERY_ATTEMPTS
    )(while_launched(at_home(agent_run)))
    _workflows[WORKFLOW_COPY_SEGMENT] = DBOS.workflow(name=WORKFLOW_COPY_SEGMENT)(while_launched(copy_segment))
    _workflows[WORKFLOW_SCHEDULED_RUN] = DBOS.workflow(name=WORKFLOW_SCHEDULED_RUN)(while_launched(scheduled_agent_run))


def registered(name: str) -> Callable[..., Any]:
    """Return a workflow as DBOS starts it."""
    return _workflows[name]


_stored_definitions: set[tuple[str, str]] = set()
"""Database and hash of the agent definitions that this process has stored."""


async def _start(run_id: str, number: int, work: dict[str, Any], entry: RegisteredAgent | None) -> StartedSegment:
    request = request_of(run_id, work["request"]) if "request" in work else None
    known = (engine().database.display_url, entry.definition.hash if entry else "")
    started = await engine().database.run_until_done(
        start_segment,
        run_id=run_id,
        segment=number,
        request=request,
        input_digest=work.get("digest", ""),
        executor_id=engine().executor_id,
        application_version=engine().application_version,
        definition=entry.definition if entry else None,
        is_definition_stored=known in _stored_definitions,
    )
    _stored_definitions.add(known)
    return started


async def _check_configuration(entry: RegisteredAgent, stored: StoredRun, workflow_id: str) -> None:
    """Park a run that needs code which is not registered here: it goes on by itself where it is."""
    request = stored.request
    missing = missing_code(entry, request.code, model_of(request))
    if missing:
        fields = " and ".join(f"run_config.{name}" for name in missing)
        error = ConfigurationMissingError(
            f"The executor {engine().executor_id} has the agent {entry.agent.name!r} without the {fields} of this run, "
            "which is code.",
        )
        await _park(stored, workflow_id, reason=CONFIGURATION_MISSING, error=error)
        raise error


def _segment(run_id: str, number: int, started: StartedSegment) -> Segment:
    stored, snapshot = started.stored, started.snapshot
    before = (snapshot.segment or 0) if snapshot is not None else 0
    is_fork = number > 1 and (snapshot is None or snapshot.segment != number - 1)
    return Segment(
        run_id=run_id,
        number=number,
        attempt=stored.attempt,
        is_fork=is_fork,
        copies=max(1, number - 1 - before) if is_fork else 0,
        stream=stored.request.stream,
        max_result_bytes=engine().settings.max_result_bytes,
        decisions=started.decisions,
        limits=limits_with(stored.request.limits, started.decisions),
        used=started.used or Used(),
        writer=StreamWriter(burst=BURST if number == stored.attempt == 1 else 0),
        known=Known(started.recorded),
    )


async def _run(entry: RegisteredAgent, started: StartedSegment, segment: Segment, workflow_id: str) -> Outcome:
    try:
        return await run_segment(entry, started, segment)
    except NotResumable as refused:
        cause = refused.__cause__
        assert isinstance(cause, Exception)
        await _park(started.stored, workflow_id, reason=reason_of(cause), error=cause)
        raise cause from None
    except NotReplayable as refused:
        cause = refused.__cause__
        assert isinstance(cause, Exception)
        raise await _history_changed(started.stored, workflow_id, cause) from cause
    except StepFailure as failure:
        if is_history_change(failure.cause):
            raise await _history_changed(started.stored, workflow_id, failure.cause) from failure.cause
        raise failure.cause from None


async def _history_changed(stored: StoredRun, workflow_id: str, cause: Exception) -> HistoryChangedError:
    """Park a run whose recorded steps do not fit, and return the error that says so."""
    recorded = f", recorded by version {stored.adopted_from}," if stored.adopted_from is not None else ""
    error = HistoryChangedError(
        f"The steps of run {stored.run.run_id!r}{recorded} do not fit the code that replays them, version "
        f"{engine().application_version}: {cause}"
    )
    await _park(stored, workflow_id, reason=HISTORY_CHANGED, error=error)
    return error


def _closing(
    entry: RegisteredAgent, outcome: Outcome, started: StartedSegment, segment: Segment
) -> tuple[Outcome, Closing]:
    """Return what is stored, and the outcome that it says: one that cannot be stored is a failure."""
    try:
        return outcome, closing_of(outcome, started.stored, segment, context_type=entry.context_type)
    except Exception as error:  # noqa: BLE001 - code of users makes output and context; what else there is is stored
        failed = Outcome(result=None, error=error, turn=outcome.turn, session=outcome.session)
        return failed, closing_of(failed, started.stored, segment, context_type=entry.context_type)


async def _check_closed(run_id: str, number: int) -> None:
    """Return when the segment was closed already; a run that was cancelled meanwhile has no outcome."""
    stored = await engine().database.run_until_done(get_stored_run, run_id)
    if stored.closed_segment < number:
        if stored.run.status == "cancelled":
            await _give_up(segment_id(run_id, number))
        raise RunCancelledError(f"The run {run_id!r} was cancelled ({stored.run.reason}).", run_id=run_id)


async def _park(stored: StoredRun, workflow_id: str, *, reason: str, error: Exception | None = None) -> None:
    """Interrupt a run without closing its segment: the journal stays, and a resume goes on from it.

    A run that was adopted waits for the version that recorded its steps; another one may try again.
    """
    why = encode_error(error) if error is not None else None
    await engine().database.run_until_done(mark_parked, stored.run.run_id, reason=reason, error=why)
    await _give_up(workflow_id, version=stored.adopted_from)


async def _give_up(workflow_id: str, *, version: str | None = None) -> None:
    """Let DBOS know the workflow as cancelled, which a resume puts back on its queue; bound to `version`, if given."""

    def cancel() -> None:
        if version is not None:
            dbos_recovery.bind_workflows(engine().client, [workflow_id], version, executor_id=engine().executor_id)
        engine().client.cancel_workflow(workflow_id)

    # Outside this task's context: inside it the cancellation would be recorded as a step.
    await asyncio.get_running_loop().run_in_executor(dbos_sdk.executor_pool(), cancel)


def _settle(waiting: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not waiting.done():
        waiting.set_result(outcome)


def _summary(started: StartedSegment, number: int) -> dict[str, Any]:
    run = started.stored.run
    return {"run_id": run.run_id, "segment": number, "status": run.status}
