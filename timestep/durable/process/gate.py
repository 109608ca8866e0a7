"""The gate before every step of this process: open, closed while the executor's lock is lost, shut for good.

`runtime/executor.py` moves it. A step that has begun is not touched; a step that would begin waits or fails here. A
process that was paused for longer than a takeover takes may have lost its lock meanwhile: its gate is closed until the
executor has looked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Generator

from timestep.errors import ExecutorFencedError

WAIT_SECONDS = 0.05


class Gate:
    """Whether steps may begin, and how many are inside."""

    def __init__(self) -> None:
        self.inside = 0
        self.reset()

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
        self.inside -= 1
        try:
            yield
        finally:
            self.inside += 1

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Count as inside, so that a drain waits."""
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


gate = Gate()
