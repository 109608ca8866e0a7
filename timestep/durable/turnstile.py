"""The runs of a crowd go on one after another.

When the models of many runs answer at once, an event loop that serves all of them in turns has each of them ready when
the last one is: they wait together and answer together again. One after another the first is ready at once, the last no
later than before, and the crowd draws itself apart.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque

ROUNDS_BETWEEN = 16
"""How often the loop comes round before the next one goes on. From a model's answer to its next question a run needs
about 45 rounds, so that about three are on their way, and one can compute while the others wait for the database."""

CALM_SECONDS = 0.005
"""Who comes so long after the last one has no crowd before it."""


class Turnstile:
    """That of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._calm_from = loop.time()

    async def go_through(self) -> None:
        """Return when it is this task's turn, in the order in which they came; at once for one that comes alone."""
        if not self._waiting and self._loop.time() >= self._calm_from:
            self._has_gone()
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._come_round(ROUNDS_BETWEEN)
        await turn

    def _come_round(self, left: int) -> None:
        if left:
            self._loop.call_soon(self._come_round, left - 1)
            return
        while (turn := self._waiting.popleft()).done():  # its task was cancelled
            if not self._waiting:
                return
        turn.set_result(None)
        self._has_gone()
        if self._waiting:
            self._come_round(ROUNDS_BETWEEN)

    def _has_gone(self) -> None:
        self._calm_from = self._loop.time() + CALM_SECONDS


_turnstiles: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = weakref.WeakKeyDictionary()


async def go_through() -> None:
    """Go through the turnstile of the running event loop."""
    loop = asyncio.get_running_loop()
    if (turnstile := _turnstiles.get(loop)) is None:
        turnstile = _turnstiles[loop] = Turnstile(loop)
    await turnstile.go_through()
