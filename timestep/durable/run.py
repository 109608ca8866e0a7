"""Run an agent inside a segment: from what the segment starts with to its outcome."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from agents import AgentsException, MaxTurnsExceeded, RunConfig, Runner, RunResult, RunState
from agents.run import DEFAULT_MAX_TURNS

from timestep.durable import agents_seam
from timestep.durable.context_changes import load_context
from timestep.durable.registry import RegisteredAgent
from timestep.durable.request import STATE_MARK, run_config_of
from timestep.durable.run_session import RunSession, read_session, write_session
from timestep.durable.scope import Scope, Segment, entered
from timestep.durable.step import StepFailure
from timestep.run_state.envelope import Snapshot
from timestep.store.segments import StartedSegment

log = logging.getLogger("timestep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a segment ended: with a result of the SDK, or with an error of the run."""

    result: RunResult | None
    error: Exception | None
    turn: int
    session: RunSession | None
    is_session_written: bool = False

    @property
    def is_interrupted(self) -> bool:
        """Whether the run waits for a person."""
        return self.result is not None and bool(self.result.interruptions)

    def finished_items(self) -> list[Any]:
        """Return the session items of the finished turns; those of an interrupted turn are held back."""
        if self.session is None:
            return []
        return self.session.finished_items(before_turn=self.turn if self.is_interrupted else None)


async def run_segment(
    entry: RegisteredAgent, started: StartedSegment, segment: Segment, *, snapshot: Snapshot | None
) -> Outcome:
    """Run the agent of a started segment; what the agent's run raises is its outcome, not raised here.

    Raises:
        StepFailure: DBOS could not run or read a step; the segment must stop without an outcome.
    """
    stored = started.stored
    scope = Scope(segment=segment)
    session: RunSession | None = None
    foreign = None
    if (session_id := stored.run.session_id) is not None:
        history = started.history
        if entry.session_factory is not None:
            foreign = entry.session_factory(session_id)
            history = await read_session(foreign)
        held = (snapshot.held_items if snapshot is not None else None) or []
        session = RunSession(session_id, history=history, held=held, turn=lambda: scope.turn)
    result: RunResult | None = None
    failure: Exception | None = None
    with entered(scope):
        try:
            run_input, config = await _input_of(entry, started, snapshot)
            result = await Runner.run(
                entry.agent,
                run_input,
                context=_context_of(entry, started, run_input),
                session=session,
                max_turns=stored.request.max_turns or DEFAULT_MAX_TURNS,
                run_config=config,
                hooks=entry.hooks,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded
            failure = error
            log_agent_error(error, agent=entry.agent.name, run_id=segment.run_id, turn=scope.turn)
    outcome = Outcome(result=result, error=failure, turn=scope.turn, session=session)
    if session is None or foreign is None:
        return outcome
    await write_session(foreign, outcome.finished_items())
    return dataclasses.replace(outcome, is_session_written=True)


def log_agent_error(error: Exception, *, agent: str, run_id: str | None, turn: int | None) -> None:
    """Log an error of the Agents SDK once, with where it happened."""
    if isinstance(error, (AgentsException, MaxTurnsExceeded)):
        where = "".join(f", {word} {value}" for word, value in (("run", run_id), ("turn", turn)) if value)
        log.error("Agent %s%s: %s: %s", agent, where, type(error).__name__, error)


async def _input_of(
    entry: RegisteredAgent, started: StartedSegment, snapshot: Snapshot | None
) -> tuple[Any, RunConfig]:
    stored = started.stored
    config = run_config_of(entry, stored.request.run_config, run_id=stored.run.run_id, session_id=stored.run.session_id)
    if stored.request.model is not None:
        config = dataclasses.replace(config, model=stored.request.model)
    if snapshot is not None:
        return await load_state(entry, snapshot.state, max_turns=stored.request.max_turns), config
    given: Any = stored.request.input_items
    if isinstance(given, dict):
        return await load_state(entry, given[STATE_MARK], max_turns=stored.request.max_turns), config
    return given, config


async def load_state(entry: RegisteredAgent, state: dict[str, Any], *, max_turns: int | None = None) -> RunState[Any]:
    """Return the RunState of its JSON, with the run's own context type and limit of turns."""
    override = None
    data = (state.get("context") or {}).get("context")
    if entry.context_type is not None and data is not None:
        override = load_context(data, entry.context_type)
    loaded = await RunState.from_json(entry.agent, state, context_override=override)
    if max_turns is not None:
        agents_seam.set_max_turns(loaded, max_turns)
    return loaded


def _context_of(entry: RegisteredAgent, started: StartedSegment, run_input: Any) -> Any:
    if isinstance(run_input, RunState):
        return None  # it is in the state
    return load_context(started.stored.request.context, entry.context_type)


__all__ = ["Outcome", "StepFailure", "load_state", "log_agent_error", "run_segment"]
