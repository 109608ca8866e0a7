"""Run an agent inside a segment: from what the segment starts with to its outcome."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from agents import (
    AgentsException,
    MaxTurnsExceeded,
    ModelBehaviorError,
    RunConfig,
    Runner,
    RunResult,
    RunResultStreaming,
    RunState,
)
from agents.run import DEFAULT_MAX_TURNS
from dbos import error as dbos_error

from timestep.client.runs import ends_with_error
from timestep.client.serializer import encode_error, frames_of
from timestep.durable.journal.halt import Halted
from timestep.durable.journal.scope import Scope, Segment, entered
from timestep.durable.journal.step import StepFailure
from timestep.durable.process.engine import engine
from timestep.durable.process.registered_agents import RegisteredAgent
from timestep.durable.seams import agents_sdk, run_state
from timestep.durable.seams.sdk_calls import field_of
from timestep.durable.segment.outcome import NotReplayable, NotResumable, Outcome, items_already_stored
from timestep.durable.segment.request import STATE_MARK, given_of_stored_state, run_config_of
from timestep.durable.segment.session import RunSession, read_session, write_session
from timestep.durable.states.context import load_context
from timestep.durable.states.decisions import apply_decisions
from timestep.durable.states.origin import Given
from timestep.durable.states.snapshots import load_snapshot, load_state
from timestep.ids import segment_id
from timestep.run_state.envelope import Snapshot
from timestep.store.agents import definitions_named
from timestep.store.runs import AT_PROVIDER, StoredRun
from timestep.store.segments import StartedSegment

log = logging.getLogger("timestep")

FULL_SEGMENTS_TURNS = 100
"""Turns of a run after which its segments become shorter."""


async def run_segment(entry: RegisteredAgent, started: StartedSegment, segment: Segment) -> Outcome:
    """Run the agent of a started segment; what the agent's run raises is its outcome, not raised here.

    Raises:
        StepFailure: DBOS could not run or read a step; the segment must stop without an outcome.
        NotResumable: the snapshot cannot be used; the segment must stop without an outcome.
        NotReplayable: the journal does not fit; the segment must stop without an outcome.
    """
    stored = started.stored
    scope = Scope(segment=segment)
    session: RunSession | None = None
    foreign = None
    if (session_id := stored.run.session_id) is not None:
        history = started.history
        if entry.session_factory is not None:
            try:
                foreign = entry.session_factory(session_id)
                history = await read_session(foreign)
            except Exception as error:  # noqa: BLE001 - the run fails of it
                return _failed(_of_users(error), entry, segment, turn=0)
        session = _session(session_id, history, started.snapshot, scope)
    result: RunResult | RunResultStreaming | None = None
    failure: Exception | None = None
    with entered(scope):
        given, config = await _given_of(entry, started)
        try:
            result = await _run_agent(entry, scope, given, started, session=session, run_config=config)
        except Halted:
            pass  # the questions are with the segment
        except Exception as error:
            failure = error
            if await _is_of_other_code(error, entry, stored, segment):
                raise NotReplayable from error
            _log_failure(error, agent=entry.agent.name, run_id=segment.run_id, turn=scope.turn)
    outcome = Outcome(
        result=result,
        error=failure,
        turn=scope.turn,
        session=session,
        questions=list(segment.halt.questions) if result is None and failure is None else [],
        is_checkpoint=isinstance(result, RunResultStreaming) and agents_sdk.is_between_turns(result),
    )
    if session is None or foreign is None or outcome.questions:
        return outcome
    try:
        await write_session(foreign, outcome.finished_items()[items_already_stored(stored, segment) :])
    except Exception as error:  # noqa: BLE001 - the run fails of it
        return _failed(_of_users(error), entry, segment, turn=scope.turn)
    return dataclasses.replace(outcome, is_session_written=True)


def _of_users(error: Exception) -> Exception:
    """Return an error of a user's session; raise one of DBOS, which stops the segment without an outcome."""
    if isinstance(error, dbos_error.DBOSException):
        raise StepFailure(error) from error
    return error


def _failed(error: Exception, entry: RegisteredAgent, segment: Segment, *, turn: int) -> Outcome:
    _log_failure(error, agent=entry.agent.name, run_id=segment.run_id, turn=turn)
    return Outcome(result=None, error=error, turn=turn, session=None)


def _log_failure(error: Exception, *, agent: str, run_id: str, turn: int) -> None:
    """Log once that a run failed, with where the code outside of Timestep and the SDK raised its error."""
    envelope = encode_error(error)
    lines = [f"{envelope['type']}: {envelope['message']}", *frames_of(envelope)]
    log.error("Run %s failed in agent %s, turn %d: %s", run_id, agent, turn, "\n  ".join(lines))


def log_agent_error(error: Exception, *, agent: str, run_id: str | None, turn: int | None) -> None:
    """Log an error of the Agents SDK once, with where it happened."""
    if isinstance(error, (AgentsException, MaxTurnsExceeded)):
        where = "".join(f", {word} {value}" for word, value in (("run", run_id), ("turn", turn)) if value)
        log.error("Agent %s%s: %s: %s", agent, where, type(error).__name__, error)


async def _is_of_other_code(error: Exception, entry: RegisteredAgent, stored: StoredRun, segment: Segment) -> bool:
    """Whether a run fails because its recorded turns ask for what this code does not have.

    The code that recorded them went on from there; this one fails before it has done anything itself. In the version
    that recorded them the agent must have had the tool: models ask for tools that nobody has, too.
    """
    if segment.is_live or not isinstance(error, ModelBehaviorError):
        return False
    if stored.adopted_from is None and not await _has_lost_tool(entry, segment):
        return False
    workflow_id, connector = segment_id(segment.run_id, segment.number), engine().connector
    return not await engine().database.run_apart(lambda: ends_with_error(connector, workflow_id))


async def _has_lost_tool(entry: RegisteredAgent, segment: Segment) -> bool:
    """Whether the last recorded turn asks for a tool that its agent had once, and has not now."""
    if not segment.record.model_turns:
        return False
    turn = segment.record.model_turns[-1]
    asked = {field_of(item, "name") for item in turn["envelope"]["ok"]["output"]} - {None}
    lost = asked - _tools_of(entry.definition.definition, turn["agent"])
    if not lost:
        return False
    known = await engine().database.run_until_done(definitions_named, entry.agent.name)
    return any(lost & _tools_of(definition, turn["agent"]) for definition in known)


def _tools_of(definition: Mapping[str, Any], agent: str) -> set[str]:
    described = definition["agents"].get(agent, {})
    handoffs = {each["tool"] for each in described.get("handoffs", ())}
    return {each["name"] for each in described.get("tools", ())} | handoffs


def _session(session_id: str, history: list[Any], snapshot: Snapshot | None, scope: Scope) -> RunSession:
    held = (snapshot.held_items if snapshot is not None else None) or []
    turn = snapshot.state.get("current_turn", 0) if snapshot is not None else 0
    return RunSession(session_id, history=history, held=held, held_turn=turn, turn=lambda: scope.turn)


async def _run_agent(
    entry: RegisteredAgent,
    scope: Scope,
    given: Given,
    started: StartedSegment,
    *,
    session: RunSession | None,
    run_config: RunConfig,
) -> RunResult | RunResultStreaming:
    """Run the agent to its end, to its next interruption, or to the last turn that the segment may have."""
    run_input: Any = given.input
    if given.ended is not None:
        return run_state.finished_result(run_input, given.ended.output)
    stored = started.stored
    max_turns = stored.request.max_turns or DEFAULT_MAX_TURNS
    options: dict[str, Any] = {
        "context": _context_of(entry, started, run_input),
        "session": session,
        "max_turns": max_turns,
        "run_config": run_config,
        "hooks": entry.hooks,
        "error_handlers": entry.error_handlers,
    }
    if not isinstance(run_input, RunState):  # a state has where its history is, as it has become since
        options |= {name: getattr(stored.request, name) for name in AT_PROVIDER}
    before = run_state.turns_of(run_input) if isinstance(run_input, RunState) else 0
    last_turn = before + _turns_of_segment(stored.request.max_turns_per_segment or max_turns, before=before)
    if last_turn >= max_turns:
        return await Runner.run(entry.agent, run_input, **options)
    scope.is_quiet = not scope.segment.stream
    return await _run_until(last_turn, scope, entry, run_input, options)


def _turns_of_segment(limit: int, *, before: int) -> int:
    """Return how many turns a segment has after `before` others: the fewer the longer the history that each one reads.

    A turn costs the SDK time in proportion to the history, in a replay too. So a recovery takes the same time whenever
    it comes. The number follows from the snapshot alone: a replay ends the segment where the first execution did.
    """
    return limit if before <= FULL_SEGMENTS_TURNS else max(1, limit * FULL_SEGMENTS_TURNS // before)


async def _run_until(
    last_turn: int, scope: Scope, entry: RegisteredAgent, run_input: Any, options: dict[str, Any]
) -> RunResultStreaming:
    """Run the agent in the SDK's streamed loop, which can be stopped between two turns."""
    result = Runner.run_streamed(entry.agent, run_input, **options)

    async def consume() -> None:
        async for _ in result.stream_events():
            if scope.turn >= last_turn:
                result.cancel(mode="after_turn")

    consumer = asyncio.ensure_future(consume())
    loop = agents_sdk.loop_task_of(result)
    try:
        await asyncio.wait((consumer, loop), return_when=asyncio.FIRST_COMPLETED)
        failure = result.run_loop_exception
        if failure is not None and not isinstance(failure, Exception):  # the SDK's consumer would wait for ever
            raise failure
        await consumer
    finally:
        consumer.cancel()
    return result


async def _given_of(entry: RegisteredAgent, started: StartedSegment) -> tuple[Given, RunConfig]:
    stored = started.stored
    config = run_config_of(entry, stored)
    snapshot = started.snapshot
    items: Any = stored.request.input_items
    if snapshot is None and not isinstance(items, dict):
        return Given(input=items), config
    try:
        if snapshot is None:
            state = await load_state(entry, items[STATE_MARK], max_turns=stored.request.max_turns)
            return given_of_stored_state(state, items), config
        state = await load_snapshot(entry, snapshot, max_turns=stored.request.max_turns)
        apply_decisions(state, [each for each in started.decisions if each.segment == snapshot.segment])
    except Exception as error:
        raise NotResumable from error
    return Given(input=state), config


def _context_of(entry: RegisteredAgent, started: StartedSegment, run_input: Any) -> Any:
    if isinstance(run_input, RunState):
        return None  # it is in the state
    return load_context(started.stored.request.context, entry.context_type)
