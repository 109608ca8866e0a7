"""SIGTERM and Ctrl-C as something that a command waits for.

A handler runs in the main thread between any two of its instructions, also while that thread holds a lock: one that
sets a `threading.Event` for which its own thread waits may wait for itself for ever. So the handler writes to a pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """The signals that ask this process to end; a second one ends it at once, with the exit code of the signal."""

    def __init__(self, told: Callable[[], None] | None = None) -> None:
        """Take the signals over. `told` is called at each of them, in the handler: it may take no lock."""
        self.has_come = False
        self._told = told
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def wait(self, seconds: float) -> bool:
        """Return whether a signal has come, at the latest after so many seconds."""
        if not self.has_come:
            select.select([self._reader], [], [], seconds)
        return self.has_come

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._told is not None:
            self._told()
        if self.has_come:
            os._exit(128 + number)
        self.has_come = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")
