"""Start a durable run in this process and wait for it; read the result of any run."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Literal

from agents import Agent, RunConfig, RunErrorHandlers
from dbos import DBOS, SetWorkflowID
from dbos import error as dbos_error

from timestep import home_loop
from timestep.client.runs import SETTLED, check_same_input, digest_of, request_fields
from timestep.client.runs import wait_run as wait_until
from timestep.durable.journal.child_runs import apart, waiting
from timestep.durable.process import closed_workflows
from timestep.durable.process.ended_runs import watching
from timestep.durable.process.engine import engine, ensure_engine
from timestep.durable.process.registered_agents import RegisteredAgent, find_agent, get_agent, register_on_the_way
from timestep.durable.result import DurableRunResult, interruption_of, result_of_outcome, result_of_stored
from timestep.durable.run_state_store import RunStateStore
from timestep.durable.seams import dbos_sdk
from timestep.durable.segment.request import build_request, take_code
from timestep.durable.segment.workflow import expecting, registered
from timestep.durable.states.claim import claimed
from timestep.durable.states.origin import Given, Input, Origin
from timestep.durable.states.resume import Continuation, continue_run, resuming, run_left_with_snapshot
from timestep.errors import InvalidInputError, SnapshotAlreadyResumed
from timestep.ids import WORKFLOW_AGENT_RUN, run_of_segment, segment_id
from timestep.records import RunLimits, RunRequest
from timestep.store.approvals import approvals_of_segment
from timestep.store.run_states import interruption_of_run, latest_of_run
from timestep.store.runs import StoredRun, find_stored_run, get_stored_run
from timestep.words import FINISHED, RESUME_RUN, WAIT_RUN, RunStatus

ResultProcessor = Callable[[Any], Awaitable[Any]]
OnInterruption = Literal["return", "wait", "raise"]
LONGEST_START_SECONDS = 30


async def run_agent_workflow(
    agent: Agent[Any] | str | None = None,
    input_items: Input | None = None,
    session: Any = None,
    stream: bool = False,
    result_processor: ResultProcessor | str | None = None,
    state_store: RunStateStore | float | None = None,
    session_id: str | None = None,
    workflow_id: str | None = None,
    timeout_seconds: float | None = None,
    *,
    agent_id: str | None = None,
    context: Any = None,
    max_turns: int | None = None,
    run_config: RunConfig | Mapping[str, Any] | None = None,
    model: str | None = None,
    limits: RunLimits | None = None,
    on_interruption: OnInterruption = "return",
    branch: bool = False,
    error_handlers: RunErrorHandlers[Any] | None = None,
    conversation_id: str | None = None,
    previous_response_id: str | None = None,
    auto_previous_response_id: bool = False,
) -> DurableRunResult:
    """Run an agent durably and return its result.

    Each model turn and each tool call is a step; after a crash the run goes on from the last finished one, here when
    the program starts again or in any executor that knows the agent. The same `workflow_id` with the same input returns
    the recorded result without a model call.

    Args:
        agent: The agent, or the name of a registered one (`agent_id` is its older name).
        input_items: Text, a list of Responses API input items, or a RunState to go on from. The state of a stored run
            continues that run, with the options and the session that it has: what was decided on it is decided, and
            this call executes the next segment. Any other starts a new run, which resumes the snapshot that the state
            was loaded from. The state of a run that has ended calls no model: the new run succeeds at once with the
            stored output.
        session: A `Session`, or a session id.
        stream: Write live events to the run's stream; read them with `stream_run(run_id)` from any process.
        result_processor: Called with the result here, in the caller's process, never on recovery.
        state_store: Where the state is saved too when the run is interrupted.
        workflow_id: The run's id and idempotency key; a fresh one when absent. In a tool it is made of the call's
            idempotency key, in a workflow of the workflow's id, so that a repeat finds the same runs.
        timeout_seconds: Limit of execution; time in a queue or waiting for a person does not count.
        context: The run context: JSON-able, or of the class registered with `context_type`.
        max_turns: Limit of turns, 10 when absent.
        run_config: What of it is code is registered with the agent, for the runs that need it: an executor that has the
            agent without it leaves the run to one that has both. For all runs: `register_agents(..., run_config=...)`.
        model: Name of the model of this run, instead of those of its agents.
        limits: What the run may use, over all of its segments, sub-agents and crashes.
        on_interruption: What to do when the run waits for a person: `return` its result, with `.interruptions`; `wait`
            until it has ended, whoever decides; `raise` an InterruptionException.
        branch: Start another run from the state of a stored run, instead of continuing that run, or from a snapshot
            that was resumed before.
        error_handlers: They belong to `register_agents(..., error_handlers=...)`; others are refused.
        conversation_id: A conversation of the OpenAI Responses API, which then has the history: no session.
        previous_response_id: A response of that API on which the run goes on; no session.
        auto_previous_response_id: Go on from each response with its id instead of the history; no session.

    Raises:
        InterruptionException: the run waits for a person, and `on_interruption` is `raise`.
        SnapshotAlreadyResumed: somebody goes on from the given state, or has.
        ApprovalAlreadyDecided: somebody decided otherwise than the given state does.
        AgentAlreadyRegisteredError: another agent of the name is registered, or other code in a field of `run_config`.
        InvalidInputError: a parameter is malformed or cannot survive the process; nothing was stored.
        RunInputMismatchError: the id is known with another input.
        RunCancelledError: the run was cancelled.
        RunTimedOutError: it reached its time limit.
        Exception: what the agent's run raised, with its own type.
    """
    if isinstance(
        result_processor, str
    ):  # the older order: agent_id, input_items, session_id, stream, workflow_id, timeout
        workflow_id, timeout_seconds = result_processor, state_store if isinstance(state_store, (int, float)) else None
        result_processor, state_store = None, None
    home_loop.enter()
    entry = entry_of(agent if agent is not None else agent_id)
    check_on_interruption(on_interruption)
    given = given_input(input_items)
    if continued_run(given, workflow_id=workflow_id, branch=branch) is not None:
        take_code(entry, run_config)
        result = await apart(_continue(entry, given))
    else:
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
        async with claimed(None if branch else given.snapshot_elsewhere, by=request.run_id):
            result = await apart(_start_unless_left(request))
    if result.status == "interrupted":
        if isinstance(state_store, RunStateStore) and result.has_state:
            await state_store.save(result.to_state())
        if on_interruption == "raise":
            raise interruption_of(result.run_id, result.interruptions)
        if on_interruption == "wait":
            result = await wait_run(result.run_id)
    if result_processor is not None:
        processed = await result_processor(result)
        return result if processed is None else processed
    return result


async def wait_run(run_id: str) -> DurableRunResult:
    """Wait until a run has ended, over all of its segments and interruptions, and return its recorded result.

    Raises:
        RunNotFoundError: there is no such run.
        Exception: what the run ended with, as in `run_agent_workflow`.
    """
    home_loop.enter()
    ensure_engine()
    return await read_result(run_id, until=FINISHED)


async def read_result(run_id: str, *, until: Collection[RunStatus] = SETTLED) -> DurableRunResult:
    """Wait until a run has ended or, with the default, is interrupted, and return its recorded result.

    Raises:
        RunNotFoundError: there is no such run.
        Exception: what the run ended with, as in `run_agent_workflow`.
    """
    connector = engine().connector
    if dbos_sdk.is_in_workflow():
        return await _read_in_workflow(run_id, until)
    with waiting(), home_loop.waiting_for(run_id):
        stored = await wait_until(connector, run_id, until=until)
        return await recorded_result(stored, stored.closed_segment)


def continued_run(given: Given, *, workflow_id: str | None, branch: bool) -> str | None:
    """Return the run that a call continues; None when it starts one.

    Raises:
        InvalidInputError: the state belongs to another run than `workflow_id`.
    """
    run_id = given.origin.run_id if given.origin is not None else None
    if run_id is None or branch:
        return None
    if workflow_id is not None and workflow_id != run_id:
        raise InvalidInputError(
            f"The state belongs to the run {run_id!r}, not to workflow_id={workflow_id!r}.",
            hint="Leave workflow_id out to continue that run, or pass branch=True to start another one from its state.",
        )
    return run_id


def check_on_interruption(word: object) -> None:
    """Refuse a word that is not one of `OnInterruption`."""
    if word not in ("return", "wait", "raise"):
        raise InvalidInputError(f"on_interruption is 'return', 'wait' or 'raise', not {word!r}.")


async def _start_unless_left(request: RunRequest) -> DurableRunResult:
    ensure_engine()
    if request.resumes_snapshot is None or dbos_sdk.is_in_workflow():
        return await _start_new(request)
    with resuming(Origin(snapshot_id=request.resumes_snapshot)):
        left = await engine().database.run_until_done(run_left_with_snapshot, request)
        return await (_start_new(request) if left is None else read_result(left))


async def _start_new(request: RunRequest) -> DurableRunResult:
    digest = digest_of(request)
    work = {"agent": request.agent, "digest": digest, "request": request_fields(request)}
    if dbos_sdk.is_in_workflow():
        return await read_result(await _execute_child(request.run_id, 1, work))
    result, is_known = None, False
    try:
        result = await _execute_segment(request.run_id, 1, work)
    except dbos_error.DBOSWorkflowIDInUseError:
        is_known = True
    if is_known:  # outside of the handler: its error says nothing to who reads the traceback
        await _check_same(request, digest)
    return result if result is not None else await read_result(request.run_id)


async def _continue(entry: RegisteredAgent, given: Given) -> DurableRunResult:
    ensure_engine()
    assert given.origin is not None

    def decide() -> dict[str, Any]:
        return dataclasses.asdict(continue_run(given, agent=entry.agent.name))

    with resuming(given.origin):
        if dbos_sdk.is_in_workflow():
            going_on = Continuation(**await DBOS.run_step_async({"name": RESUME_RUN}, decide))
        else:
            going_on = Continuation(**await asyncio.to_thread(decide))
        result = None
        if going_on.starts is not None and dbos_sdk.is_in_workflow():
            await _execute_child(going_on.run_id, going_on.starts, {"agent": going_on.agent})
        elif going_on.starts is not None:
            with contextlib.suppress(dbos_error.DBOSWorkflowIDInUseError):
                result = await _execute_segment(going_on.run_id, going_on.starts, {"agent": going_on.agent})
        return result if result is not None else await read_result(going_on.run_id)


async def _execute_segment(run_id: str, number: int, work: dict[str, Any]) -> DurableRunResult | None:
    """Execute a segment at the home of this process; return its result, or None when the run's row has to be asked.

    Raises:
        DBOSWorkflowIDInUseError: the segment has been started before, perhaps in a home that has ended since.
    """
    with home_loop.waiting_for(run_id):
        while (place := home_loop.place_of(run_id)) not in (None, asyncio.get_running_loop()):
            with contextlib.suppress(home_loop.LoopEnded):
                return await home_loop.run_in(place, lambda: _execute_here(run_id, number, work))
        return await _execute_here(run_id, number, work)


async def _execute_here(run_id: str, number: int, work: dict[str, Any]) -> DurableRunResult | None:
    workflow_id = segment_id(run_id, number)
    with expecting(workflow_id) as outcome:
        with SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"):
            handle: Any = await DBOS.start_workflow_async(registered(WORKFLOW_AGENT_RUN), work)
        ended = await _wait_for_close(handle, outcome, run_id, workflow_id)
    return result_of_outcome(ended, run_id=run_id, segment=number) if ended is not None else None


async def _execute_child(run_id: str, number: int, work: dict[str, Any]) -> str:
    """Execute a segment as a child of this workflow, and return the id of its run: the one that the parent recorded."""
    with SetWorkflowID(segment_id(run_id, number)):
        handle: Any = await DBOS.start_workflow_async(registered(WORKFLOW_AGENT_RUN), work)
    await handle.get_result()
    return run_of_segment(handle.get_workflow_id())[0]


async def _wait_for_close(handle: Any, outcome: asyncio.Future[Any], run_id: str, workflow_id: str) -> Any:
    """Return the outcome when the segment is closed here; None when it ended elsewhere or was cancelled.

    A closed segment is over: its row says so. DBOS notes the end of the workflow meanwhile.
    """
    here = asyncio.ensure_future(handle.get_result())
    closed_workflows.note(workflow_id, here)
    with watching(run_id) as stored:
        await asyncio.wait((here, stored, outcome), return_when=asyncio.FIRST_COMPLETED)
        has_ended = here.done() and not here.cancelled()  # cancelled: it was left in the middle, and goes on elsewhere
        if has_ended and isinstance(here.exception(), SnapshotAlreadyResumed):
            here.result()  # another run was first: there is no row to wait for
        if here.done() and not outcome.done():  # DBOS gave the workflow up, or another executor has it
            await stored
        return outcome.result() if outcome.done() else None


async def _read_in_workflow(run_id: str, until: Collection[RunStatus]) -> DurableRunResult:
    """Read a result in workflow code: the segment that was seen is a step, so that a replay sees the same one."""

    async def wait() -> dict[str, Any]:
        stored = await wait_until(engine().connector, run_id, until=until)
        return {"status": stored.run.status, "segment": stored.closed_segment}

    seen = await DBOS.run_step_async({"name": WAIT_RUN}, wait)
    stored = await engine().database.run_until_done(get_stored_run, run_id)
    if seen["status"] == "interrupted":  # whatever became of it since
        run = dataclasses.replace(stored.run, status="interrupted", output=None, error=None)
        stored = dataclasses.replace(stored, run=run)
    return await recorded_result(stored, seen["segment"])


async def recorded_result(stored: StoredRun, segment: int) -> DurableRunResult:
    """Return the result of a run that has ended, or was interrupted, with this segment; raise what it ended with."""
    database, run = engine().database, stored.run
    if run.status == "interrupted":
        snapshot = await database.run_until_done(interruption_of_run, run.run_id, segment)
        asked = await database.run_until_done(approvals_of_segment, run.run_id, segment)
    else:
        snapshot, asked = await database.run_until_done(latest_of_run, run.run_id), []
    return await result_of_stored(stored, snapshot, find_agent(run.agent), segment=segment, asked=asked)


async def _check_same(request: RunRequest, digest: str) -> None:
    """Refuse a known id with another input. The row may follow the workflow by a moment."""
    database = engine().database
    stored: StoredRun | None = None
    for _ in range(10 * LONGEST_START_SECONDS):
        stored = await database.run_until_done(find_stored_run, request.run_id)
        if stored is not None:
            break
        await asyncio.sleep(0.1)
    known = stored.input_digest if stored is not None else await asyncio.to_thread(_digest_of_workflow, request.run_id)
    repeated = "A tool that is repeated must start the same runs in the same order, or name them: `workflow_id=`."
    before = stored.request if stored is not None else None
    check_same_input(request, known, digest, before, hint=repeated if request.parent_run_id else None)


def _digest_of_workflow(workflow_id: str) -> str | None:
    found = engine().client.list_workflows(workflow_ids=[workflow_id])
    given = found[0].input if found else None
    return given["args"][0].get("digest") if given else None


def entry_of(agent: Agent[Any] | str | None) -> RegisteredAgent:
    if agent is None:
        raise InvalidInputError("No agent was given.", hint="Pass `agent=`, an Agent or the name of a registered one.")
    if isinstance(agent, str):
        return get_agent(agent)
    if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"An agent is an Agent or a name, not {type(agent).__name__}: {agent!r}.")
    return register_on_the_way(agent)


def given_input(input_items: Input | None) -> Given:
    if input_items is None:
        raise InvalidInputError("No input was given.", hint="Pass `input_items=`: text, a list of items or a RunState.")
    return Given.of(input_items)


def session_of(state_store: Any) -> str | None:
    return state_store.session_id if isinstance(state_store, RunStateStore) else None
