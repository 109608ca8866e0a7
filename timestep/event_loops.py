"""Event loops of this process: when each of them ends, and what belongs to it until then.

A connection can be used in the event loop alone that opened it. So what the library opens is kept for each loop, and
closed in it before it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable
from typing import Any, TypeVar

from timestep.errors import UnsupportedError

T = TypeVar("T")

log = logging.getLogger("timestep")

LONGEST_CLOSE_SECONDS = 5.0
"""How long the end of an event loop may wait for one thing to be closed."""

LOOKS_BEFORE_PAUSED = 2
"""After how many looks in a row, one a second, a loop that does not run counts as paused."""

LOOKS_BEFORE_STUCK = 30
"""After how many looks in a row a loop that runs and comes round to nothing, as it is blocked, counts as paused too."""


class _Life:
    """One event loop from the first look at it to its end."""

    def __init__(self) -> None:
        self.has_ended = False
        self.idle_looks = self.silent_looks = 0
        self.told: list[Callable[[], None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._things: dict[Hashable, tuple[Any, Callable[[], Awaitable[object]]]] = {}
        self._keeper = self._keep()
        # asyncio closes the asynchronous generators of a loop before the loop: that is how its end is noticed.
        with contextlib.suppress(StopIteration):
            self._keeper.__anext__().send(None)

    def thing(self, key: Hashable, make: Callable[[], T], close: Callable[[T], Awaitable[object]]) -> T:
        if key not in self._things:
            made = make()
            self._things[key] = made, lambda: close(made)
        return self._things[key][0]

    @property
    def is_stuck(self) -> bool:
        return self.silent_looks >= LOOKS_BEFORE_STUCK

    def look(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Look at a loop that is not closed, and return whether it is paused or stuck since this look."""
        if not loop.is_running():
            self.idle_looks += 1
            return self.idle_looks == LOOKS_BEFORE_PAUSED
        self.idle_looks = 0
        self.silent_looks += 1
        if self.silent_looks == 1:
            loop.call_soon_threadsafe(self._come_round)
        return self.silent_looks == LOOKS_BEFORE_STUCK

    def _come_round(self) -> None:
        self.silent_looks = 0

    def begin_to_close(self) -> asyncio.Task[None] | None:
        if not self._things:
            return None
        self._closing = asyncio.get_running_loop().create_task(self.close())
        return self._closing

    async def close(self) -> None:
        """Close what belongs to the loop, the newest first. In that loop."""
        while self._things:
            key, (_, close) = self._things.popitem()
            try:
                async with asyncio.timeout(LONGEST_CLOSE_SECONDS):
                    await close()
            except Exception as error:  # noqa: BLE001 - the others are closed all the same
                log.debug("%s was not closed: %s", key, error)

    async def _keep(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.has_ended = True
            _tell(asyncio.get_running_loop(), self)
            await self.close()


_lives: dict[asyncio.AbstractEventLoop, _Life] = {}
_listeners: list[Callable[[asyncio.AbstractEventLoop], None]] = []
_lock = threading.Lock()


def of_running_loop(key: Hashable, make: Callable[[], T], close: Callable[[T], Awaitable[object]]) -> T:
    """Return what the running event loop has under `key`; the first call makes it.

    `close` is awaited in the loop before it ends, or when the engine stops.
    """
    return _life_of(asyncio.get_running_loop()).thing(key, make, close)


def notice_end() -> None:
    """Notice from now on when the running event loop ends."""
    _life_of(asyncio.get_running_loop())


def is_usable(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether an event loop runs, is not stuck, and has not begun to end."""
    life = _lives.get(loop)
    return loop.is_running() and not (life is not None and (life.has_ended or life.is_stuck))


def on_end(listener: Callable[[asyncio.AbstractEventLoop], None]) -> None:
    """Call `listener`, in any thread, with each event loop that ends or is paused."""
    _listeners.append(listener)


def forget_listener(listener: Callable[[asyncio.AbstractEventLoop], None]) -> None:
    """Call `listener` no more."""
    _listeners.remove(listener)


@contextlib.contextmanager
def told_of_end(loop: asyncio.AbstractEventLoop, told: Callable[[], None]) -> Generator[None]:
    """Call `told`, in any thread, when an event loop that was noticed ends or is paused; at once when it has ended."""
    life = _lives.get(loop)
    if life is not None:
        life.told.append(told)
    try:
        if life is None or not is_usable(loop):
            told()
        yield
    finally:
        if life is not None:
            life.told.remove(told)


def look() -> None:
    """Find the loops that ended without a word, or that do not run any more; once a second, in any thread."""
    with _lock:
        lives = list(_lives.items())
    for loop, life in lives:
        if loop.is_closed():
            _end(loop)
            continue
        with contextlib.suppress(RuntimeError):  # it is closed meanwhile
            if life.look(loop):
                _tell(loop, life)


def close_others(running: asyncio.AbstractEventLoop | None = None) -> None:
    """Close what belongs to the loops that run, besides `running`, which is blocked meanwhile. Blocks."""
    with _lock:
        lives = [(loop, life) for loop, life in _lives.items() if is_usable(loop) and loop is not running]
    for closing in [asyncio.run_coroutine_threadsafe(life.close(), loop) for loop, life in lives]:
        with contextlib.suppress(Exception):
            closing.result(timeout=LONGEST_CLOSE_SECONDS)


def close_here() -> asyncio.Task[None] | None:
    """Begin to close what belongs to the running event loop, and return the task of it; None when there is nothing."""
    try:
        life = _lives.get(asyncio.get_running_loop())
    except RuntimeError:
        return None
    return life.begin_to_close() if life is not None else None


def explained(error: Exception) -> Exception:
    """Return the error that says why, when one comes of using in a loop what another one has opened; else `error`."""
    try:
        is_of_another_loop = isinstance(error, RuntimeError) and any(words in str(error) for words in _OF_ANOTHER_LOOP)
    except Exception:  # noqa: BLE001 - code of users makes the text
        return error
    if not is_of_another_loop:
        return error
    return UnsupportedError(
        f"A client, connection or lock is used in another event loop than the one that opened it: {error}",
        hint="Make it for each loop, inside the function that uses it, or let the library make the client: name the "
        "model. See docs/how-to/tools-and-idempotency-keys.md.",
    )


_OF_ANOTHER_LOOP = ("is bound to a different event loop", "attached to a different loop", "Event loop is closed")
"""What asyncio says then."""


def _life_of(loop: asyncio.AbstractEventLoop) -> _Life:
    life = _lives.get(loop)
    if life is None:
        for closed in [each for each in list(_lives) if each.is_closed()]:
            _end(closed)
        life = _Life()
        with _lock:
            _lives[loop] = life
    return life


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Forget a loop that is closed; one that closed nothing before is told of."""
    with _lock:
        life = _lives.pop(loop, None)
    if life is not None and not life.has_ended:
        life.has_ended = True
        _tell(loop, life)


def _tell(loop: asyncio.AbstractEventLoop, life: _Life) -> None:
    for told in list(life.told):
        told()
    for listener in list(_listeners):
        listener(loop)
