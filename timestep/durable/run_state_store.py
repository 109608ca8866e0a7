"""Save the state of a run under a session, and load it again in any process."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from agents import Agent, RunState
from agents.version import __version__ as sdk_version

from timestep.durable.origin import Origin, origin_of, origin_of_snapshot, with_origin
from timestep.errors import InvalidInputError, RunStateNotFoundError
from timestep.ids import check_session_id, new_session_id
from timestep.run_state.envelope import Snapshot, python_snapshot
from timestep.run_state.reading import check_readable
from timestep.store import run_states as store
from timestep.store.connection import Database
from timestep.store.current import open_current_database, open_other_database


class RunStateStore:
    """Keeps `RunState`s in Postgres. `load` finds the newest one of the session, whoever stored it.

    Also an asynchronous context manager, which closes it.
    """

    def __init__(self, agent: Agent[Any], session_id: str | None = None, connection_string: str | None = None) -> None:
        """Name what is stored; connects to nothing.

        `agent` is the agent that the run started with. Without `session_id` a new one is made; read it from
        the attribute to load in another process. `connection_string` is a database of this store's own;
        without it the store uses that of the process.

        Raises:
            InvalidInputError: the agent is none, or the session id cannot be used.
        """
        if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(
                f"RunStateStore needs the agent of the run, not {type(agent).__name__}.",
                hint="Write RunStateStore(agent=agent, session_id=session_id).",
            )
        self.agent = agent
        self.session_id = new_session_id() if session_id is None else check_session_id(session_id)
        self._connection_string = connection_string
        self._own: Database | None = None
        self._opening = asyncio.Lock()

    async def save(self, state: RunState[Any, Any]) -> None:
        """Store the state, finished or not, as the session's newest.

        What the run waits for is stored with it. A finished state has lost its final output: read that from
        the result before.

        Raises:
            InvalidInputError: `state` is no RunState, or holds what JSON cannot keep.
        """
        snapshot = self._snapshot(state)
        database = await self._open()
        await database.run(store.save_snapshot, snapshot)

    async def load(self) -> RunState[Any, Agent[Any]]:
        """Return the session's newest state.

        Raises:
            FileNotFoundError: nothing is stored, or it was cleared.
            UnsupportedError: another SDK wrote it, or a newer one.
        """
        database = await self._open()
        snapshot = await database.run(store.latest_snapshot, self.session_id)
        if snapshot is None:
            raise RunStateNotFoundError(f"No run state is stored under the session {self.session_id!r}.")
        state = await RunState.from_json(self.agent, check_readable(snapshot).state)
        return with_origin(state, origin_of_snapshot(snapshot))

    async def clear(self) -> None:
        """Keep the session's states in the database, but load them no longer. May be called twice."""
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

    def _snapshot(self, state: RunState[Any, Any]) -> Snapshot:
        if not isinstance(state, RunState):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(
                f"RunStateStore.save takes a RunState, not {type(state).__name__}.",
                hint="Write `await store.save(result.to_state())`.",
            )
        json_state = state.to_json()
        _refuse_lost_context(json_state)
        origin = origin_of(state) or Origin()
        return python_snapshot(
            json_state,
            agent=self.agent.name,
            sdk_version=sdk_version,
            run_id=origin.run_id,
            session_id=self.session_id,
            segment=origin.segment,
            is_saved=True,
        )

    async def _open(self) -> Database:
        if self._connection_string is None:
            return await open_current_database()
        async with self._opening:
            if self._own is None:
                self._own = await open_other_database(self._connection_string)
            return self._own


def _refuse_lost_context(json_state: dict[str, Any]) -> None:
    """Refuse a context of which the SDK keeps nothing but a warning."""
    meta = json_state.get("context", {}).get("context_meta") or {}
    if meta.get("omitted"):
        kind = meta.get("class_path") or meta.get("original_type")
        raise InvalidInputError(
            f"The run's context is of type {kind}, of which nothing would be stored.",
            hint="Give the run a dict, a dataclass of JSON-able fields or a pydantic model as context.",
        )
