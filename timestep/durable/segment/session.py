"""The session that the SDK sees inside a durable run: history from the start, own items kept until the segment ends.

The SDK writes to its session again and again during a run, and again on recovery. Here the items are collected, each
with its turn, and stored once, in the closing transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dbos import DBOS

from timestep.client.sessions import Session
from timestep.durable.process.engine import engine
from timestep.durable.seams.user_code import contained
from timestep.store.sessions import append_items_once, read_items
from timestep.words import SESSION_READ, SESSION_WRITE


class RunSession:
    """A session in memory; satisfies the SDK's Session protocol."""

    session_settings: Any = None

    def __init__(
        self,
        session_id: str,
        *,
        history: list[dict[str, Any]],
        turn: Callable[[], int],
        held: Sequence[dict[str, Any]] = (),
        held_turn: int = 0,
    ) -> None:
        """`held` are items of the unfinished turn `held_turn` that an earlier segment kept back; `turn` tells the
        current turn."""
        self.session_id = session_id
        self._history = history
        self._turn = turn
        self._own: list[tuple[int, Any]] = [(held_turn, item) for item in held]

    async def get_items(self, limit: int | None = None) -> list[Any]:
        items = [*self._history, *(item for _, item in self._own)]
        if limit is None:
            return items
        return items[-limit:] if limit > 0 else []

    async def add_items(self, items: list[Any]) -> None:
        self._own.extend((self._turn(), item) for item in items)

    async def pop_item(self) -> Any | None:
        return self._own.pop()[1] if self._own else None

    async def clear_session(self) -> None:
        self._own.clear()

    def finished_items(self, *, before_turn: int | None = None) -> list[Any]:
        """Return the run's own items, or those of the turns before `before_turn`; the input belongs to turn 0."""
        return [item for turn, item in self._own if before_turn is None or turn < before_turn]

    def held_items(self, turn: int) -> list[Any]:
        """Return the items of `turn` and later."""
        return [item for of, item in self._own if of >= turn]


async def read_session(session: Any) -> list[Any]:
    """Return the items of a session that is not kept with the run, as the step `session_read`."""

    async def read() -> list[Any]:
        if isinstance(session, Session):
            return await engine().database.run_until_done(read_items, session.session_id)
        return list(await contained(session.get_items))

    return await DBOS.run_step_async({"name": SESSION_READ}, read)


async def write_session(session: Any, items: list[Any]) -> None:
    """Add the items of a run to a session that is not kept with the run, as the step `session_write`.

    A `timestep.Session` gets them exactly once, any other session at least once: a crash between its write and the
    step's record writes them again. It never holds half a turn.
    """
    reservation = DBOS.reserve_step()
    marker = f"{DBOS.workflow_id}/{reservation.step_id}"

    async def write() -> int:
        if isinstance(session, Session):
            return await engine().database.run_until_done(append_items_once, session.session_id, items, run_id=marker)
        await contained(lambda: session.add_items(items))
        return len(items)

    await reservation.run_async({"name": SESSION_WRITE}, write)
