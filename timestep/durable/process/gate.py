"""The gate before every step of this process: open, closed while the executor's lock is lost, shut for good.

`runtime/executor.py` moves it. A step that has begun is not touched; a step that would begin waits or fails here. A
process that was paused for longer than a takeover takes may have lost its lock meanwhile: its gate is closed until the
executor has looked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Generator

from timestep.errors import ExecutorFencedError

WAIT_SECONDS = 0.05


class Gate:
    """Whether steps may begin, and how many are inside."""

    def __init__(self) -> None:
        self._inside: Counter[asyncio.AbstractEventLoop] = Counter()
        self._lock = threading.Lock()
        self.reset()

    @property
    def inside(self) -> int:
        """How many steps are inside, in loops that run: one whose loop has ended or is paused never comes out."""
        with self._lock:
            return sum(count for loop, count in self._inside.items() if loop.is_running())

    def reset(self) -> None:
        """Open the gate, as that of a new executor."""
        self.is_open = True
        self.is_fenced = False
        self.why_fenced: str | None = None
        self.is_draining = False
        self._good_until = math.inf

    def confirm(self, *, seconds: float) -> None:
        """Open the gate for so many seconds: the executor has its lock."""
        self.is_open = True
        self._good_until = time.monotonic() + seconds

    async def pass_through(self, *, has_begun: bool = False) -> None:
        """Return when steps may begin; `has_begun`: one that is inside may go on, also when others may not begin.

        Raises:
            ExecutorFencedError: this executor was taken over, or its event loop has ended.
        """
        while not self._is_good() or (self.is_draining and not has_begun):
            if self.is_fenced:
                raise ExecutorFencedError(self.why_fenced)
            await asyncio.sleep(WAIT_SECONDS)

    def _is_good(self) -> bool:
        return self.is_open and not self.is_fenced and time.monotonic() <= self._good_until

    @contextlib.contextmanager
    def outside(self) -> Generator[None]:
        """Not count as inside, in a step that waits: a drain goes on without it. Pass through before an effect."""
        with self._counting(-1):
            yield

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Count as inside, so that a drain waits."""
        with self._counting(1):
            yield

    @contextlib.contextmanager
    def _counting(self, change: int) -> Generator[None]:
        loop = asyncio.get_running_loop()
        self._count(loop, change)
        try:
            yield
        finally:
            self._count(loop, -change)

    def _count(self, loop: asyncio.AbstractEventLoop, change: int) -> None:
        with self._lock:
            self._inside[loop] += change
            for each in [each for each, count in self._inside.items() if not count or each.is_closed()]:
                del self._inside[each]


gate = Gate()
