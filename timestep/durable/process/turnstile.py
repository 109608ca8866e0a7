"""The runs of a crowd go on one after another.

When the models of many runs answer at once, an event loop that serves all of them in turns has each of them ready when
the last one is: they wait together and answer together again. One after another the first is ready at once, the last no
later than before, and the crowd draws itself apart.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable

ROUNDS_BETWEEN = 16
"""How often the loop comes round before the next one goes on. From a model's answer to its next question a run needs
about 45 rounds, so that about three are on their way, and one can compute while the others wait for the database."""

CALM_SECONDS = 0.005
"""Who comes so long after the last one has no crowd before it."""


class Turnstile:
    """That of one event loop, which it does not hold: it would keep a loop that has ended in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._calm_from = clock()

    async def go_through(self) -> None:
        """Return when it is this task's turn, in the order in which they came; at once for one that comes alone."""
        if not self._waiting and self._clock() >= self._calm_from:
            self._has_gone()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._come_round(ROUNDS_BETWEEN)
        await turn

    def _come_round(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._come_round, left - 1)
            return
        while (turn := self._waiting.popleft()).done():  # its task was cancelled
            if not self._waiting:
                return
        turn.set_result(None)
        self._has_gone()
        if self._waiting:
            self._come_round(ROUNDS_BETWEEN)

    def _has_gone(self) -> None:
        self._calm_from = self._clock() + CALM_SECONDS


_turnstiles: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = weakref.WeakKeyDictionary()


async def go_through() -> None:
    """Go through the turnstile of the running event loop."""
    loop = asyncio.get_running_loop()
    if (turnstile := _turnstiles.get(loop)) is None:
        turnstile = _turnstiles[loop] = Turnstile()
    await turnstile.go_through()
