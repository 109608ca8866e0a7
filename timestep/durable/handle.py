"""What a queued run gives its caller: a handle that works in every process."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from timestep import home_loop
from timestep.durable.journal.child_runs import ending_together
from timestep.durable.process import segment_place
from timestep.durable.process.engine import engine, ensure_engine
from timestep.durable.process.threads import run_in_thread
from timestep.durable.result import DurableRunResult
from timestep.durable.start import read_result, wait_run
from timestep.store.runs import get_stored_run
from timestep.words import FINISHED, RunStatus


class RunHandle:
    """A queued run. Works in any process; `await handle` returns the handle itself."""

    def __init__(self, run_id: str) -> None:
        self.workflow_id = run_id
        self.run_id = run_id

    def __await__(self) -> Generator[Any, None, RunHandle]:
        return _returning(self).__await__()

    def get_result(self) -> PendingResult:
        """Return the result: `await` it, or read a field of it, which blocks until the run has ended."""
        return PendingResult(self.run_id)

    def get_status(self) -> Status:
        """Return the run's status now, one of the words of `RunStatus`; may be awaited too."""
        ensure_engine()
        return Status(engine().database.run_sync(get_stored_run, self.run_id).run.status)

    def get_workflow_id(self) -> str:
        """Return the run's id."""
        return self.run_id


class PendingResult:
    """A result that is awaited, or that blocks when it is read: that of the run's end, over all interruptions."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._result: DurableRunResult | None = None

    def __await__(self) -> Generator[Any, None, DurableRunResult]:
        return wait_run(self._run_id).__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._read(), name)

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._read()

    def _read(self) -> DurableRunResult:
        if self._result is None:
            ensure_engine()
            # The run may need the loop that this blocks.
            with ending_together(), home_loop.stepping_aside(segment_place.leave):
                self._result = run_in_thread(lambda: asyncio.run(read_result(self._run_id, until=FINISHED)))
        return self._result


class Status(str):
    """A status word that may be awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, RunStatus]:
        return _returning(str(self)).__await__()


async def _returning(value: Any) -> Any:
    return value
