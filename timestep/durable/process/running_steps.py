"""Steps whose bodies run in this process now, so that those of a cancelled run can be interrupted.

DBOS offers this too (`preemptible`), at the price of another task for each step. Here the executor asks once a second
which of its workflows are cancelled, and interrupts what they are doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable
from typing import Any


class Entry:
    """One running step: the task that runs its body."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        self.is_interrupted = False
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._is_over = False

    def interrupt(self) -> None:
        """Cancel the step's task, from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._cancel)

    def leave(self) -> None:
        """Say that the step is over."""
        self._is_over = True
        if self.is_interrupted and self._task is not None:
            self._task.uncancel()

    def _cancel(self) -> None:
        if not self._is_over and not self.is_interrupted and self._task is not None:
            self.is_interrupted = True
            self._task.cancel()


_entries: set[Entry] = set()
_lock = threading.Lock()


def enter(workflow_id: str) -> Entry:
    """Note that this task runs a step of a workflow; call `leave` when it is over."""
    entry = Entry(workflow_id)
    with _lock:
        _entries.add(entry)
    return entry


def leave(entry: Entry) -> None:
    """Note that the step is over."""
    entry.leave()
    with _lock:
        _entries.discard(entry)


def workflows_in_flight() -> set[str]:
    """Return the ids of the workflows that run a step here now."""
    with _lock:
        return {entry.workflow_id for entry in _entries}


def interrupt(workflow_ids: Iterable[str]) -> None:
    """Interrupt the running steps of these workflows."""
    wanted = set(workflow_ids)
    with _lock:
        found = [entry for entry in _entries if entry.workflow_id in wanted]
    for entry in found:
        entry.interrupt()
