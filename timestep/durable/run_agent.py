"""`run_agent`: an agent run as the SDK runs it; inside a DBOS workflow every effect of it is a step by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from agents import Agent, RunConfig, RunErrorHandlers, RunHooks, Runner, RunResultStreaming, RunState
from agents.run import DEFAULT_MAX_TURNS
from dbos import DBOS

from timestep.durable.result import interruption_of
from timestep.durable.seams import dbos_sdk, run_state
from timestep.durable.segment.request import check_input, with_default_provider
from timestep.durable.segment.run import log_agent_error
from timestep.durable.segment.session import RunSession, read_session, write_session
from timestep.durable.states.claim import Claim, settled_by_stream
from timestep.durable.states.origin import Given, Origin
from timestep.errors import InvalidInputError

ResultProcessor = Callable[[Any], Awaitable[Any]]


async def default_result_processor(result: Any) -> Any:
    """Return a result when it is complete: the events of a streamed one are consumed, and can be read again."""
    if hasattr(result, "stream_events"):
        events = [event async for event in result.stream_events()]
        if isinstance(result, RunResultStreaming):
            _replay(result, events)
    return result


async def consume_result(result: Any) -> Any:
    """Return a result after all of its events: the older name of `default_result_processor`."""
    return await default_result_processor(result)


async def run_agent(
    agent: Agent[Any],
    run_input: str | Sequence[Mapping[str, Any]] | RunState[Any],
    session: Any = None,
    stream: bool = False,
    result_processor: ResultProcessor | None = default_result_processor,
    *,
    run_config: RunConfig | None = None,
    context: Any = None,
    max_turns: int | None = None,
    hooks: RunHooks[Any] | None = None,
    on_interruption: Literal["return", "raise"] = "return",
    branch: bool = False,
    error_handlers: RunErrorHandlers[Any] | None = None,
    conversation_id: str | None = None,
    previous_response_id: str | None = None,
    auto_previous_response_id: bool = False,
) -> Any:
    """Run an agent and return the SDK's own result, which also has `.output`.

    Not durable by itself: use `run_agent_workflow` for that, or call this inside a DBOS workflow, where each model turn
    and each tool call is a step of that workflow.

    A state that `RunStateStore.load` returned is held while this run goes on from it, and is resumed when the run has
    returned; what raises gives it back. The state of a run that has ended calls no model: the stored output is
    returned.

    Args:
        run_input: Text, a list of Responses API input items, or a RunState to go on from.
        session: Any session of the SDK, or a `timestep.Session`. Inside a workflow it is written at the end.
        run_config: As the SDK takes it; one that names no model provider gets the default of Timestep.
        result_processor: What to do with the result before it is returned. The default one waits for the end of a
            streamed run, whose `stream_events()` then yields what has happened. None returns the result at once, a
            streamed one still running; a stored state is then held until the events have been read to their end.
        on_interruption: What to do when the run waits for a person: `return` the result, or `raise`.
        error_handlers: As the SDK takes them; so are `conversation_id`, `previous_response_id` and
            `auto_previous_response_id`, which leave the history at the model's provider and go without a session.
        branch: Go on from a stored state that was resumed before, or that belongs to a durable run.

    Raises:
        InterruptionException: the run waits for a person, and `on_interruption` is `raise`.
        InvalidInputError: the input is empty or malformed, or the state of a durable run that has not ended.
        SnapshotAlreadyResumed: somebody goes on from the stored state, or has.
        AgentsException: as the SDK raises it, logged once.
    """
    if on_interruption not in ("return", "raise"):
        raise InvalidInputError(f"on_interruption of run_agent is 'return' or 'raise', not {on_interruption!r}.")
    given = Given.of(run_input)
    checked: Any = run_input if isinstance(run_input, RunState) else check_input(run_input)
    if given.ended is not None:
        finished = run_state.finished_result(checked, given.ended.output, is_streamed=stream)
        return await _processed(finished, result_processor)
    claim = Claim(None if branch else _claimable(given))
    config = with_default_provider(run_config if run_config is not None else RunConfig(nest_handoff_history=False))
    kept: RunSession | None = None
    if session is not None and dbos_sdk.is_in_workflow():
        history = await read_session(session)
        kept = RunSession(getattr(session, "session_id", ""), history=history, turn=lambda: 0)
    used = kept if kept is not None else session
    options: dict[str, Any] = {
        "context": context,
        "session": used,
        "run_config": config,
        "hooks": hooks,
        "max_turns": max_turns if max_turns is not None else DEFAULT_MAX_TURNS,
        "error_handlers": error_handlers,
        "conversation_id": conversation_id,
        "previous_response_id": previous_response_id,
        "auto_previous_response_id": auto_previous_response_id,
    }
    await claim.hold()
    try:
        if stream:
            result: Any = settled_by_stream(Runner.run_streamed(agent, checked, **options), claim)
        else:
            result = await Runner.run(agent, checked, **options)
            await claim.settle()
        result = await _processed(result, result_processor)
    except BaseException as error:
        await claim.let_go()
        if isinstance(error, Exception):
            log_agent_error(error, agent=agent.name, run_id=DBOS.workflow_id, turn=_turn_of(error))
        raise
    if kept is not None:
        await write_session(session, kept.finished_items())
    waits_for = getattr(result, "interruptions", None)
    if waits_for and on_interruption == "raise":
        raise interruption_of(DBOS.workflow_id, waits_for)
    return result


def _replay(result: RunResultStreaming, events: Sequence[Any]) -> None:
    """Let `stream_events` yield what was consumed, as often as it is called."""

    async def stream_events() -> AsyncIterator[Any]:
        for event in events:
            yield event

    vars(result)["stream_events"] = stream_events


async def _processed(result: Any, processor: ResultProcessor | None) -> Any:
    processed = await processor(result) if processor is not None else None
    return result if processed is None else processed


def _claimable(given: Given) -> Origin | None:
    origin = given.origin
    if origin is not None and origin.run_id is not None:
        raise InvalidInputError(
            f"The state belongs to the durable run {origin.run_id!r}, which goes on by itself when it is decided.",
            hint="Continue it with `run_agent_workflow(agent, state)`, or pass branch=True to run it a second time.",
        )
    return origin


def _turn_of(error: Exception) -> int | None:
    data = getattr(error, "run_data", None)
    return len(data.raw_responses) if data is not None else None
