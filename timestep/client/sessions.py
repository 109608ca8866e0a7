"""Sessions: a conversation across runs, kept in Postgres, and every verb on those that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from timestep.errors import SessionInUseError, SessionNotFoundError
from timestep.ids import check_session_id, new_session_id
from timestep.records import StoredSession
from timestep.store import sessions as store
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database

if TYPE_CHECKING:  # DBOS's client is no part of a Session
    from timestep.client.connector import Connector


class Session:
    """The items of one conversation; satisfies the Agents SDK's `Session` protocol.

    Making one connects to nothing. The first use opens the database of this process: the configured one, else
    the embedded server. The same id, in any process, is the same conversation.
    """

    session_id: str
    session_settings: Any = None
    """The SDK's `SessionSettings`, or None; its `limit` holds where `get_items` is called without one."""

    def __init__(self, session_id: str | None = None, *, database: Database | None = None) -> None:
        """Name the conversation; without an id it is a new one.

        Raises:
            InvalidInputError: the id cannot be used.
        """
        self.session_id = new_session_id() if session_id is None else check_session_id(session_id)
        self._database = database

    def __repr__(self) -> str:
        return f"Session({self.session_id!r})"

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """Return the items in order, or the latest `limit` of them."""
        if limit is None:
            limit = getattr(self.session_settings, "limit", None)
        database = await self._open()
        return await database.run(store.read_items, self.session_id, limit=limit)

    async def add_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Add items at the end, all or none of them.

        Raises:
            InvalidInputError: an item is not JSON.
        """
        if items:
            database = await self._open()
            await database.run(store.append_items, self.session_id, items)

    async def pop_item(self) -> Any | None:
        """Remove the last item and return it; None when there is none."""
        database = await self._open()
        return await database.run(store.pop_item, self.session_id)

    async def clear_session(self) -> None:
        """Remove every item."""
        database = await self._open()
        await database.run(store.clear_session, self.session_id)

    async def _get_session_id(self) -> str:
        return self.session_id

    async def _open(self) -> Database:
        return self._database or await open_current_database()


def list_sessions(connector: Connector, *, limit: int = 50) -> list[StoredSession]:
    """Return the sessions that have items, those first that were changed last."""
    return connector.database.run_sync(store.list_sessions, limit=limit)


def get_session(connector: Connector, session_id: str) -> StoredSession:
    """Return a session with the runs in it.

    Raises:
        SessionNotFoundError: no item and no run has this session.
    """
    return connector.database.run_sync(_get, session_id)


def list_session_items(connector: Connector, session_id: str, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the items of a session in order, or the latest `limit` of them.

    Raises:
        SessionNotFoundError: no item and no run has this session.
    """
    get_session(connector, session_id)
    return connector.database.run_sync(store.read_items, session_id, limit=limit)


def delete_session(connector: Connector, session_id: str, *, force: bool = False) -> StoredSession:
    """Delete a conversation and return it as it was, with the runs in it; they stay, with their input and output.

    With `force` also one whose runs have not ended: they go on, and add their items to a new conversation.

    Raises:
        SessionNotFoundError: no item and no run has this session.
        SessionInUseError: runs of it are queued or running, or wait for a person.
    """
    return connector.database.run_sync(_delete, session_id, force=force)


def _get(connection: sa.Connection, session_id: str) -> StoredSession:
    found = store.find_session(connection, session_id)
    if found is None:
        raise SessionNotFoundError(f"There is no session {session_id!r}.")
    return found


def _delete(connection: sa.Connection, session_id: str, *, force: bool) -> StoredSession:
    store.lock_session(connection, session_id)
    found = _get(connection, session_id)
    if found.unfinished_run_ids and not force:
        named = ", ".join(found.unfinished_run_ids[:3]) + (" ..." if len(found.unfinished_run_ids) > 3 else "")
        count = len(found.unfinished_run_ids)
        have = "1 run has" if count == 1 else f"{count} runs have"
        raise SessionInUseError(f"In the session {session_id!r} {have} not ended: {named}.")
    store.delete_session(connection, session_id)
    return found
