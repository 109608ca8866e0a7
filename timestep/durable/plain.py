"""`run_agent`: an agent run as the SDK runs it; inside a DBOS workflow every effect of it is a step by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agents import Agent, RunConfig, RunHooks, Runner, RunState
from agents.run import DEFAULT_MAX_TURNS
from dbos import DBOS

from timestep.durable import dbos_seam
from timestep.durable.engine import engine
from timestep.durable.request import check_input
from timestep.durable.run import log_agent_error
from timestep.durable.run_session import RunSession
from timestep.sessions import Session
from timestep.store.sessions import append_items_once, read_items

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
) -> Any:
    """Run an agent and return the SDK's own result, which also has `.output`.

    Not durable by itself: use `run_agent_workflow` for that, or call this inside a DBOS workflow, where each model turn
    and each tool call is a step of that workflow.

    Args:
        session: Any session of the SDK, or a `timestep.Session`. Inside a workflow it is written at the end.
        result_processor: What to do with the result before it is returned; None returns it at once, a streamed one
            still running.

    Raises:
        InvalidInputError: the input is empty or malformed.
        AgentsException: as the SDK raises it, logged once.
    """
    given: Any = run_input if isinstance(run_input, RunState) else check_input(run_input)
    config = run_config if run_config is not None else RunConfig(nest_handoff_history=False)
    kept = await _kept_session(session) if dbos_seam.is_in_workflow() and session is not None else None
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
        await _store(session, kept)
    return result


async def _kept_session(session: Any) -> RunSession:
    """Return what the run sees of a session inside a workflow; one step, `session_read`."""

    async def read() -> list[Any]:
        if isinstance(session, Session):
            return await engine().database.run_until_done(read_items, session.session_id)
        return list(await session.get_items())

    history = await DBOS.run_step_async({"name": "session_read"}, read)
    return RunSession(getattr(session, "session_id", ""), history=history, held=[], turn=lambda: 0)


async def _store(session: Any, kept: RunSession) -> None:
    """Write the run's items, as the step `session_write`.

    A `timestep.Session` gets them exactly once; any other session at least once: a crash between its write and the
    step's record writes them again. It never holds half a run.
    """
    items = kept.finished_items()
    reservation = DBOS.reserve_step()
    marker = f"{DBOS.workflow_id}/{reservation.step_id}"

    async def write() -> int:
        if isinstance(session, Session):
            return await engine().database.run_until_done(append_items_once, session.session_id, items, run_id=marker)
        await session.add_items(items)
        return len(items)

    await reservation.run_async({"name": "session_write"}, write)


def _turn_of(error: Exception) -> int | None:
    data = getattr(error, "run_data", None)
    return len(data.raw_responses) if data is not None else None
