"""Save the state of a run under a session or in a file, and load it again in any process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from agents import Agent, RunState

from timestep.durable.process.registered_agents import find_agent
from timestep.durable.seams import run_state
from timestep.durable.states.context import load_context
from timestep.durable.states.origin import origin_of_snapshot, with_origin
from timestep.durable.states.output import load_output
from timestep.durable.states.saved_context import ContextDeserializer, ContextSerializer
from timestep.durable.states.snapshots import (
    check_names,
    check_snapshot,
    check_snapshot_size,
    restore_state,
    snapshot_to_save,
)
from timestep.errors import InvalidInputError, RunStateNotFoundError, SnapshotMismatchError
from timestep.ids import check_session_id, new_session_id
from timestep.run_state.envelope import Snapshot
from timestep.run_state.state_file import clear_file, load_from_file, save_to_file
from timestep.settings import current_settings
from timestep.store import run_states as store
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database, open_other_database


class RunStateStore:
    """Keeps `RunState`s in Postgres. `load` finds the newest one of the session, whoever stored it.

    `RunStateStore("agent_state.json", agent)`, the older form, keeps them in a JSON file instead, without a database.
    Also an asynchronous context manager, which closes it.
    """

    @overload
    def __init__(
        self,
        agent: Agent[Any],
        session_id: str | None = None,
        connection_string: str | None = None,
        *,
        context_serializer: ContextSerializer | None = None,
        context_deserializer: ContextDeserializer | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        agent: str | os.PathLike[str],
        session_id: Agent[Any],
        *,
        context_serializer: ContextSerializer | None = None,
        context_deserializer: ContextDeserializer | None = None,
    ) -> None: ...

    def __init__(
        self,
        agent: Agent[Any] | str | os.PathLike[str],
        session_id: str | Agent[Any] | None = None,
        connection_string: str | None = None,
        *,
        context_serializer: ContextSerializer | None = None,
        context_deserializer: ContextDeserializer | None = None,
    ) -> None:
        """Name what is stored; connects to nothing.

        Args:
            agent: The agent that the run started with; in the older form the path of the file.
            session_id: Without it a new one is made; read it from the attribute to load in another process. In the
                older form the agent.
            connection_string: A database of this store's own; without it the store uses that of the process.
            context_serializer: Makes a dict of a run context that is no dict; without it dataclasses and pydantic
                models are stored as pydantic does.
            context_deserializer: Makes the context of that dict again; without it the `context_type` that the agent
                is registered with.

        Raises:
            InvalidInputError: the agent is none, or the session id cannot be used.
        """
        path: Path | None = None
        if isinstance(agent, (str, os.PathLike)) and isinstance(session_id, Agent):
            path, agent, session_id = Path(agent), session_id, None
        if not isinstance(agent, Agent) or isinstance(session_id, Agent):
            raise InvalidInputError(
                f"RunStateStore needs the agent of the run, not {type(agent).__name__}.",
                hint="Write RunStateStore(agent=agent, session_id=session_id), or RunStateStore('state.json', agent).",
            )
        if path is not None and connection_string is not None:
            raise InvalidInputError(
                f"The states are kept in the file {path} or in a database, not in both.",
                hint="Leave the path or the connection_string away.",
            )
        self.agent: Agent[Any] = agent
        self.session_id = new_session_id() if session_id is None else check_session_id(session_id)
        self.path = path
        self._connection_string = connection_string
        self._context_serializer = context_serializer
        self._context_deserializer = context_deserializer
        self._own: Database | None = None
        self._opening = asyncio.Lock()

    async def save(self, state: RunState[Any, Any]) -> int:
        """Store the state, finished or not, as the session's newest, in one transaction; return the snapshot's id.

        What the run waits for is stored with it, and the final output of a run that has ended.

        Raises:
            InvalidInputError: `state` is no RunState, or holds what JSON cannot keep; the message names the field.
            SnapshotMismatchError: the agent reaches two agents of one name.
            SnapshotTooLargeError: it is larger than twice `TIMESTEP_MAX_RESULT_BYTES`.
        """
        if not isinstance(state, RunState):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(
                f"RunStateStore.save takes a RunState, not {type(state).__name__}.",
                hint="Write `await store.save(result.to_state())`.",
            )
        check_names(self.agent)
        snapshot = snapshot_to_save(
            state, agent=self.agent.name, session_id=self.session_id, context_serializer=self._context_serializer
        )
        check_snapshot_size(snapshot.state, limit_bytes=2 * current_settings().max_result_bytes)
        if self.path is not None:
            return await asyncio.to_thread(save_to_file, self.path, snapshot)
        return await (await self._open()).run(store.save_snapshot, snapshot)

    async def load(self, *, snapshot_id: int | None = None) -> RunState[Any, Agent[Any]]:
        """Return the session's newest state, or an earlier one by its id, cleared or not.

        Loading claims nothing; the run that goes on from the state does.

        Raises:
            FileNotFoundError: nothing is stored, or it was cleared; there is no snapshot of that id.
            SnapshotDamagedError: its text is not the one that was stored.
            SnapshotMismatchError: it is of another agent, or waits for a tool that the agent does not have.
            UnsupportedError: another SDK wrote it, or a newer one.
        """
        snapshot = await self._read(snapshot_id)
        check_snapshot(snapshot)
        check_names(self.agent)
        if snapshot.agent != self.agent.name:
            raise SnapshotMismatchError(
                f"The snapshot {snapshot.id} is of the agent {snapshot.agent!r}, not of {self.agent.name!r}.",
                hint="Make the store with the agent that the run started with.",
            )
        state = await restore_state(
            self.agent, snapshot.state, context_deserializer=self._deserializer(), mcp_tools=snapshot.mcp_tools
        )
        last = run_state.current_agent_of(state) or self.agent
        try:
            output = load_output(snapshot.output, last.output_type)
        except ValueError as error:
            raise SnapshotMismatchError(
                f"The output of snapshot {snapshot.id} is not of the output type of {last.name!r}: {error}"
            ) from error
        url = self._own.url if self._own is not None else None
        return with_origin(state, origin_of_snapshot(snapshot, output=output, database_url=url, path=self.path))

    async def clear(self) -> None:
        """Keep the session's states, but load them no longer. May be called twice."""
        if self.path is not None:
            await asyncio.to_thread(clear_file, self.path)
        else:
            database = await self._open()
            await database.run(store.deactivate, self.session_id)

    async def close(self) -> None:
        """Close the store's own database; that of the process stays open. May be called twice."""
        own, self._own = self._own, None
        if own is not None:
            own.close()

    async def __aenter__(self) -> RunStateStore:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _read(self, snapshot_id: int | None) -> Snapshot:
        place = f"in {self.path}" if self.path is not None else f"under the session {self.session_id!r}"
        if self.path is not None:
            snapshot = await asyncio.to_thread(load_from_file, self.path, snapshot_id)
        elif snapshot_id is not None:
            snapshot = await (await self._open()).run(store.find_snapshot, snapshot_id, self.session_id)
        else:
            snapshot = await (await self._open()).run(store.latest_snapshot, self.session_id)
        if snapshot is None and snapshot_id is not None:
            raise RunStateNotFoundError(
                f"No snapshot {snapshot_id!r} is stored {place}.", hint="Load the newest one without snapshot_id."
            )
        if snapshot is None:
            raise RunStateNotFoundError(f"No run state is stored {place}.")
        return snapshot

    def _deserializer(self) -> ContextDeserializer | None:
        if self._context_deserializer is not None:
            return self._context_deserializer
        entry = find_agent(self.agent.name)
        kind = entry.context_type if entry is not None else None
        return (lambda data: load_context(dict(data), kind)) if kind is not None else None

    async def _open(self) -> Database:
        if self._connection_string is None:
            return await open_current_database()
        async with self._opening:
            if self._own is None:
                self._own = await open_other_database(self._connection_string)
            return self._own
