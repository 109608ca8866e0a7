"""The gate before every step of this process: open, closed while the executor's lock is lost, shut for good.

`runtime.py` moves it. A step that has begun is not touched; a step that would begin waits or fails here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator

from timestep.errors import ExecutorFencedError

WAIT_SECONDS = 0.05


class Gate:
    """Whether steps may begin, and how many are inside."""

    def __init__(self) -> None:
        self.is_open = True
        self.is_fenced = False
        self.inside = 0

    async def pass_through(self) -> None:
        """Return when steps may begin.

        Raises:
            ExecutorFencedError: this executor was taken over.
        """
        while not self.is_open or self.is_fenced:
            if self.is_fenced:
                raise ExecutorFencedError
            await asyncio.sleep(WAIT_SECONDS)

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
