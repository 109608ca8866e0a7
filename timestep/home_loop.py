"""The home of this process: the one event loop in which its runs execute.

It is the running loop that was the first to call Timestep. While it runs, a second loop only waits. When it ends, the
next loop that has called and runs is the home; without any there is none, and the engine uses a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

from timestep import event_loops

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop

BETWEEN_SECONDS = 0.5
"""How long after the end of a home the next one is waited for: programs call `asyncio.run` more than once."""


class LoopEnded(Exception):
    """The loop in which something was to run has ended, or is paused; `has_begun`: it may have run in part."""

    def __init__(self, *, has_begun: bool) -> None:
        super().__init__("The event loop has ended.")
        self.has_begun = has_begun


_lock = threading.Lock()
_callers: list[Loop] = []
_home: Loop | None = None
_ended_at = -BETWEEN_SECONDS
_aside: list[Loop] = []
_waiting: dict[str, list[Loop]] = {}
_has_ended_under_others = False
_own: Loop | None = None


def enter() -> None:
    """Note that the running event loop, if there is one, calls Timestep: it is the home if none is."""
    with contextlib.suppress(RuntimeError):
        loop = asyncio.get_running_loop()
        if loop not in _callers and loop is not _own:
            event_loops.notice_end()
            with _lock:
                _callers.append(loop)


def set_own(loop: Loop | None) -> None:
    """Say which loop is the engine's own: it is no home, whatever calls Timestep in it."""
    global _own
    _own = loop


def home() -> Loop | None:
    """Return the home, None when no loop that has called runs."""
    global _home, _ended_at
    with _lock:
        if _home is not None and not _is_ready(_home):
            _home, _ended_at = None, time.monotonic()
        if _home is None:
            _callers[:] = [each for each in _callers if not each.is_closed()]
            _home = next(filter(_is_ready, _callers), None)
        return _home


def place_of(run_id: str) -> Loop | None:
    """Return the loop in which a segment of a run executes: the home, or None for the engine's own.

    Where loops of threads come and go, a home ends under the runs of others. Once it has, each run executes in the loop
    that waits for it, which does not end before.
    """
    if _has_ended_under_others:
        waiting = next(filter(_is_ready, _waiting.get(run_id, ())), None)
        if waiting is not None:
            return waiting
    return home()


def is_between() -> bool:
    """Whether the last home has ended so short a time ago that the next one may follow at once."""
    return home() is None and time.monotonic() - _ended_at < BETWEEN_SECONDS


@contextlib.contextmanager
def waiting_for(run_id: str) -> Generator[None]:
    """Note that the running loop waits for a run."""
    loop = asyncio.get_running_loop()
    with _lock:
        _waiting.setdefault(run_id, []).append(loop)
    try:
        yield
    finally:
        with _lock:
            _waiting[run_id].remove(loop)
            if not _waiting[run_id]:
                del _waiting[run_id]


def note_end_under(run_id: str, ended: Loop) -> None:
    """Note that a home has ended while it executed a run."""
    global _has_ended_under_others
    waiting = _waiting.get(run_id, [])
    if ended not in waiting and any(map(_is_ready, waiting)):
        _has_ended_under_others = True


@contextlib.contextmanager
def stepping_aside(told: Callable[[Loop], None]) -> Generator[None]:
    """Let the running loop, if there is one, not be the home while its thread is blocked inside; `told` of it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        yield
        return
    _aside.append(loop)
    told(loop)
    try:
        yield
    finally:
        _aside.remove(loop)


async def run_in(loop: Loop, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what the coroutine of `make` returns, run as a task of another loop, in a copy of this task's context.

    A cancelled call cancels that task.

    Raises:
        LoopEnded: the loop has ended, is paused, or cancelled the task.
    """
    here = asyncio.get_running_loop()
    settled: asyncio.Future[None] = here.create_future()
    handed = _Handed(loop, make)

    def wake(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # this loop has ended too
            here.call_soon_threadsafe(lambda: settled.done() or settled.set_result(None))

    handed.answer.add_done_callback(wake)
    with event_loops.told_of_end(loop, wake):
        try:
            handed.begin(contextvars.copy_context())
            await settled
        except asyncio.CancelledError:
            handed.take_back()
            raise
    if handed.answer.done():
        return handed.answer.result()
    raise LoopEnded(has_begun=not handed.take_back())


class _Handed:
    """A coroutine that another loop runs, unless it is taken back before."""

    def __init__(self, loop: Loop, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.answer: Future[Any] = Future()
        self._loop, self._make = loop, make
        self._task: asyncio.Task[Any] | None = None

    def begin(self, context: contextvars.Context) -> None:
        try:
            self._loop.call_soon_threadsafe(self._begin, context=context)
        except RuntimeError:
            self.answer.set_exception(LoopEnded(has_begun=False))

    def take_back(self) -> bool:
        """Return whether it has not begun, and does not any more; else its task is cancelled."""
        if self.answer.cancel():
            return True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())
        return False

    def _begin(self) -> None:
        if self.answer.set_running_or_notify_cancel():
            self._task = self._loop.create_task(self._make())
            self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.answer.set_exception(LoopEnded(has_begun=True))
        elif (error := task.exception()) is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(task.result())


def _is_ready(loop: Loop) -> bool:
    return loop not in _aside and event_loops.is_usable(loop)
