"""Between a RunState and its snapshot: what a program saves, and the state that an agent here makes of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from agents import (
    Agent,
    RunState,
)
from agents.version import __version__ as sdk_version

from timestep.durable.process.agent_definition import reachable_agents
from timestep.durable.process.registered_agents import RegisteredAgent
from timestep.durable.seams import run_state
from timestep.durable.states.context import load_context
from timestep.durable.states.origin import Given, Origin
from timestep.durable.states.output import keep_output
from timestep.durable.states.saved_context import (
    ContextDeserializer,
    ContextSerializer,
    check_saved_context,
    dump_saved_context,
)
from timestep.durable.states.state_json import add_outputs, give_outputs_back
from timestep.durable.states.tool_lists import using_tool_lists
from timestep.durable.values.keeping import is_structure, restore
from timestep.errors import (
    InvalidInputError,
    SnapshotDamagedError,
    SnapshotMismatchError,
    SnapshotTooLargeError,
    TimestepError,
)
from timestep.run_state.envelope import Snapshot, SnapshotKind, kind_of, python_snapshot
from timestep.run_state.reading import check_readable
from timestep.store.json_text import dump_json

log = logging.getLogger("timestep")


def check_snapshot(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot unchanged whose text is whole, and which the installed Agents SDK reads.

    Raises:
        SnapshotDamagedError: the stored text is not the one that was written.
        UnsupportedError: another SDK wrote it, or a newer one.
    """
    if not snapshot.is_intact:
        raise SnapshotDamagedError(f"The text of snapshot {snapshot.id} is not the one that was stored.")
    return check_readable(snapshot)


def check_names(agent: Agent[Any]) -> None:
    """Refuse an agent that reaches two of one name: a stored state names them, and could go on with the wrong one.

    Raises:
        SnapshotMismatchError: the message names the name.
    """
    names = [each.name for each in reachable_agents(agent)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SnapshotMismatchError(
            f"The agent {agent.name!r} reaches two agents of the name {twice!r}, which a state cannot tell apart.",
            hint="Give each agent a name of its own.",
        )


async def restore_state(
    agent: Agent[Any],
    data: dict[str, Any],
    *,
    context_deserializer: ContextDeserializer | None = None,
    mcp_tools: Mapping[str, Any] | None = None,
) -> RunState[Any]:
    """Return the RunState of its JSON.

    `mcp_tools` are tool lists as they were recorded: the servers that they name are not asked.

    Raises:
        SnapshotMismatchError: it does not fit the agent: an agent, a tool or the context's class is not there.
    """
    stored = data.get("context") or {}
    meta, is_tree = stored.get("context_meta") or {}, is_structure(stored.get("context"))
    needed = _loader(context_deserializer) if is_tree or meta.get("requires_deserializer", True) else None
    if meta.get("omitted"):
        log.error(
            "The context of a run state was not stored by the version that wrote it; its defaults take its place."
        )
    if meta.get("requires_deserializer") and context_deserializer is None and not is_tree:
        kind = meta.get("class_path") or meta.get("original_type")
        raise SnapshotMismatchError(
            f"The context of the run state is of type {kind}, which this process was not told how to build.",
            hint="Register the agent with `register_agents(agent, context_type=...)`, or give RunStateStore a "
            "context_deserializer.",
        )
    try:
        with using_tool_lists(mcp_tools or {}):
            state = await RunState.from_json(agent, data, context_deserializer=needed, strict_context=True)
        lost = run_state.lost_calls(state, data)
        give_outputs_back(state, data)
    except TimestepError:
        raise
    except Exception as error:
        raise SnapshotMismatchError(
            f"The run state does not fit the agent {agent.name!r} of this process: {error}"
        ) from error
    if lost:
        names = ", ".join(repr(name) for name in lost)
        raise SnapshotMismatchError(f"The run state waits for calls of {names}, which {agent.name!r} does not have.")
    return state


def _loader(deserializer: ContextDeserializer | None) -> ContextDeserializer:
    """Return what makes a context of its JSON: of a tree by itself, of other JSON the deserializer."""

    def load(data: Mapping[str, Any]) -> Any:
        return restore(data) if is_structure(data) else deserializer(data) if deserializer is not None else data

    return load


def snapshot_to_save(
    state: RunState[Any, Any], *, agent: str, session_id: str, context_serializer: ContextSerializer | None
) -> Snapshot:
    """Return the snapshot of a state that a program saves, with the final output of its run when that has ended.

    Raises:
        InvalidInputError: the context or a tool's data would not be kept; the message names the field.
    """
    data = _json_of(state, context_serializer)
    origin = Given.of(state).origin
    kind, output = _end_of(state, origin, data)
    return python_snapshot(
        data,
        agent=agent,
        sdk_version=sdk_version,
        run_id=origin.run_id if origin is not None else None,
        session_id=session_id,
        segment=origin.segment if origin is not None else None,
        kind=kind,
        output=keep_output(output, _output_type_of(state)) if kind == "final" else None,
        is_saved=True,
    )


def _json_of(state: RunState[Any, Any], context_serializer: ContextSerializer | None) -> dict[str, Any]:
    refused: list[Exception] = []

    def serialize(context: Any) -> Mapping[str, Any]:
        try:
            data = (context_serializer or dump_saved_context)(context)
            check_saved_context(data)
        except Exception as error:
            refused.append(error)
            raise
        return data

    try:
        data = state.to_json(context_serializer=serialize, strict_context=True)
    except Exception:
        with contextlib.suppress(IndexError):
            raise refused[0] from None  # the SDK wraps what a serializer raises
        raise
    check_saved_context(data["context"].get("context"))
    add_outputs(data, state)
    try:
        dump_json(data)
    except InvalidInputError:
        for name, part in data.items():
            check_saved_context(part, name)
        raise
    return data


def _end_of(state: RunState[Any, Any], origin: Origin | None, data: dict[str, Any]) -> tuple[SnapshotKind, Any]:
    """Return what the state is a snapshot of, and its run's final output."""
    kind = kind_of(data)
    if kind != "final":
        return kind, None
    if origin is not None and origin.is_final:
        return "final", origin.output
    if origin is not None and origin.run_id is None and origin.snapshot_id is None:  # its result has not ended
        return "checkpoint", None
    has_ended, output = run_state.output_of_last_item(state)
    return ("final", output) if has_ended else ("checkpoint", None)


def _output_type_of(state: RunState[Any, Any]) -> Any:
    agent = run_state.current_agent_of(state)
    return agent.output_type if agent is not None else None


def check_snapshot_size(state: dict[str, Any], *, limit_bytes: int) -> None:
    """Refuse a state whose JSON is larger than `limit_bytes`.

    Raises:
        SnapshotTooLargeError: it is larger.
    """
    size = len(dump_json(state).encode())
    if size > limit_bytes:
        raise SnapshotTooLargeError(f"The run state has {size:,} bytes, more than the limit of {limit_bytes:,}.")


async def load_snapshot(entry: RegisteredAgent, snapshot: Snapshot, *, max_turns: int | None = None) -> RunState[Any]:
    """Return the RunState of a snapshot.

    Raises:
        SnapshotDamagedError: the stored text is not the one that was written.
        SnapshotMismatchError: it names agents or tools that are not there any more.
        UnsupportedError: another SDK wrote it, or a newer one.
    """
    check_snapshot(snapshot)
    return await load_state(entry, snapshot.state, max_turns=max_turns, mcp_tools=snapshot.mcp_tools)


async def load_state(
    entry: RegisteredAgent,
    state: dict[str, Any],
    *,
    max_turns: int | None = None,
    mcp_tools: Mapping[str, Any] | None = None,
) -> RunState[Any]:
    """Return the RunState of its JSON, with the run's own context type and limit of turns."""
    kind = entry.context_type
    loaded = await restore_state(
        entry.agent,
        state,
        context_deserializer=(lambda data: load_context(data, kind)) if kind is not None else None,
        mcp_tools=mcp_tools,
    )
    if max_turns is not None:
        run_state.set_max_turns(loaded, max_turns)
    return loaded
