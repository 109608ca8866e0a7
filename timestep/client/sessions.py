"""Sessions: a conversation across runs, kept in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timestep.ids import check_session_id, new_session_id
from timestep.store import sessions as store
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database


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
