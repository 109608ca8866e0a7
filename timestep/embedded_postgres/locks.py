"""Locks that the kernel drops when their process dies, however it dies.

A forked child inherits open descriptors, and with them its parent's locks. It closes them at once: closing a
copy does not unlock, so the parent keeps what it holds and the child holds nothing.
"""

# pyright: reportPossiblyUnboundVariable=false
# Windows has no fcntl; what uses it is refused there before it is called.
from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from timestep.errors import EmbeddedPostgresError

if sys.platform != "win32":
    import fcntl

LOCK_POLL_SECONDS = 0.02


class Deadline:
    """A point in time, made from the seconds until then."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def has_passed(self) -> bool:
        return time.monotonic() >= self._at


class Hold:
    """A shared lock on a file: this process counts as a user of what the file stands for."""

    def __init__(self, path: Path) -> None:
        """Take the hold. Blocks only while another process tries `is_last`."""
        self._path = path
        self._pid = os.getpid()
        self._is_closed = False
        self._descriptor = _open(path)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    @property
    def is_mine(self) -> bool:
        """Whether this very process took the hold, and not the one it was forked from."""
        return self._pid == os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether the hold is mine and the file still is the one at the path."""
        return self.is_mine and _is_same_file(self._descriptor, self._path)

    def is_last(self) -> bool:
        """Tell whether nobody else holds the file."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Give the hold up; may be called twice. In a forked child nothing is left to close."""
        if self.is_mine and not self._is_closed:
            self._is_closed = True
            _close(self._descriptor)


@contextmanager
def exclusive(path: Path, deadline: Deadline) -> Generator[int]:
    """Hold the file alone, against threads and processes; yields the descriptor.

    A child process that is given the descriptor keeps the lock when this process is killed.

    Raises:
        EmbeddedPostgresError: somebody else has held it until the deadline.
    """
    descriptor = _lock_exclusively(path, deadline)
    try:
        yield descriptor
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked in between may hold a copy
        _close(descriptor)


class _State:
    """What a forked child must not inherit."""

    def __init__(self) -> None:
        self.descriptors: set[int] = set()
        self.handles_fork = False

    def forget(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


_state = _State()


def _open(path: Path) -> int:
    if not _state.handles_fork:
        os.register_at_fork(after_in_child=_state.forget)
        _state.handles_fork = True
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _state.descriptors.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    _state.descriptors.discard(descriptor)
    os.close(descriptor)


def _lock_exclusively(path: Path, deadline: Deadline) -> int:
    while True:
        descriptor = _open(path)
        is_locked = False
        try:
            while not _try_exclusive(descriptor):
                if deadline.has_passed:
                    raise _timed_out(path, deadline)
                time.sleep(LOCK_POLL_SECONDS)
            is_locked = _is_same_file(descriptor, path)  # else it was deleted meanwhile: lock the new one
            if is_locked:
                return descriptor
        finally:
            if not is_locked:
                _close(descriptor)


def _try_exclusive(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _timed_out(path: Path, deadline: Deadline) -> EmbeddedPostgresError:
    return EmbeddedPostgresError(
        f"Another process or thread has kept {path} locked for {deadline.seconds:g} s.",
        hint="It may still be starting the server: try again, or stop that process.",
    )
