"""`run_agent`: an agent run as the SDK runs it; inside a DBOS workflow every effect of it is a step by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from agents import Agent, RunConfig, RunHooks, Runner, RunState
from agents.run import DEFAULT_MAX_TURNS
from dbos import DBOS

from timestep.durable import dbos_seam
from timestep.durable.request import check_input
from timestep.durable.result import interruption_of
from timestep.durable.run import log_agent_error
from timestep.durable.run_session import RunSession, read_session, write_session
from timestep.errors import InvalidInputError

ResultProcessor = Callable[[Any], Awaitable[Any]]


async def default_result_processor(result: Any) -> Any:
    """Return a result when it is complete: the events of a streamed one are consumed."""
    if hasattr(result, "stream_events"):
        async for _ in result.stream_events():
            pass
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
) -> Any:
    """Run an agent and return the SDK's own result, which also has `.output`.

    Not durable by itself: use `run_agent_workflow` for that, or call this inside a DBOS workflow, where each model turn
    and each tool call is a step of that workflow.

    Args:
        session: Any session of the SDK, or a `timestep.Session`. Inside a workflow it is written at the end.
        result_processor: What to do with the result before it is returned; None returns it at once, a streamed one
            still running.
        on_interruption: What to do when the run waits for a person: `return` the result, or `raise`.

    Raises:
        InterruptionException: the run waits for a person, and `on_interruption` is `raise`.
        InvalidInputError: the input is empty or malformed.
        AgentsException: as the SDK raises it, logged once.
    """
    if on_interruption not in ("return", "raise"):
        raise InvalidInputError(f"on_interruption of run_agent is 'return' or 'raise', not {on_interruption!r}.")
    given: Any = run_input if isinstance(run_input, RunState) else check_input(run_input)
    config = run_config if run_config is not None else RunConfig(nest_handoff_history=False)
    kept: RunSession | None = None
    if session is not None and dbos_seam.is_in_workflow():
        history = await read_session(session)
        kept = RunSession(getattr(session, "session_id", ""), history=history, turn=lambda: 0)
    used = kept if kept is not None else session
    options: dict[str, Any] = {
        "context": context,
        "session": used,
        "run_config": config,
        "hooks": hooks,
        "max_turns": max_turns if max_turns is not None else DEFAULT_MAX_TURNS,
    }
    try:
        if stream:
            result: Any = Runner.run_streamed(agent, given, **options)
        else:
            result = await Runner.run(agent, given, **options)
        if result_processor is not None:
            processed = await result_processor(result)
            result = result if processed is None else processed
    except Exception as error:
        log_agent_error(error, agent=agent.name, run_id=DBOS.workflow_id, turn=_turn_of(error))
        raise
    if kept is not None:
        await write_session(session, kept.finished_items())
    waits_for = getattr(result, "interruptions", None)
    if waits_for and on_interruption == "raise":
        raise interruption_of(DBOS.workflow_id, waits_for)
    return result


def _turn_of(error: Exception) -> int | None:
    data = getattr(error, "run_data", None)
    return len(data.raw_responses) if data is not None else None
