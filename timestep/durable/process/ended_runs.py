"""One look at the store for all callers that wait in an event loop: a look each would cost more than their runs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import weakref
from collections.abc import Generator

from timestep.durable.process.engine import engine
from timestep.store.runs import settled_among

ENDED_POLL_SECONDS = 0.5
"""How often to check whether a run was cancelled, or ended in another process."""


class _Watch:
    """The waiting callers of one loop, and the timer of the next look."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting: dict[asyncio.Future[None], str] = {}
        self._next: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None

    def add(self, settled: asyncio.Future[None], run_id: str) -> None:
        self._waiting[settled] = run_id
        self._plan()

    def remove(self, settled: asyncio.Future[None]) -> None:
        del self._waiting[settled]
        settled.cancel()
        if not self._waiting and self._next is not None:
            self._next.cancel()
            self._next = None

    def _plan(self) -> None:
        loop = self._loop()
        if loop is not None and self._next is None and self._look is None:
            self._next = loop.call_later(ENDED_POLL_SECONDS, self._begin)

    def _begin(self) -> None:
        self._next = None
        self._look = asyncio.create_task(self._look_once())

    async def _look_once(self) -> None:
        looked_at = dict(self._waiting)
        try:
            ended = await engine().database.run_until_done(settled_among, set(looked_at.values()))
        except Exception as error:  # noqa: BLE001 - every caller hears of it
            for settled in looked_at:
                if not settled.done():
                    settled.set_exception(error)
                    settled.exception()  # seen
        else:
            for settled, run_id in looked_at.items():
                if run_id in ended and not settled.done():
                    settled.set_result(None)
        finally:
            self._look = None
        if self._waiting:
            self._plan()


_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def watching(run_id: str) -> Generator[asyncio.Future[None]]:
    """Let the caller have a future that is done when the store says that the run has ended or waits for a person."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = _Watch(loop)
    settled: asyncio.Future[None] = loop.create_future()
    contextvars.Context().run(watch.add, settled, run_id)  # the looks are no part of the caller's run
    try:
        yield settled
    finally:
        watch.remove(settled)
