"""What the engine of this process stands on; `runtime.py` puts it here when it launches."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from dbos import DBOS, DBOSClient

from timestep.client.connector import Connector
from timestep.errors import UnsupportedError
from timestep.settings import Settings
from timestep.store.connection import Database

P = ParamSpec("P")
T = TypeVar("T")

WAIT_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The launched engine of a process."""

    settings: Settings
    connector: Connector
    executor_id: str
    application_version: str

    @property
    def database(self) -> Database:
        """The database of this process."""
        return self.connector.database

    @property
    def client(self) -> DBOSClient:
        """DBOS's client for it."""
        return self.connector.dbos


_engine: Engine | None = None
_stopping: Engine | None = None
"""An engine that takes no work any more, for what is under way."""

_launcher: Callable[[], None] | None = None


def engine() -> Engine:
    """Return the engine of this process, also while it stops.

    Raises:
        UnsupportedError: it is not launched.
    """
    found = _engine or _stopping
    if found is None:
        raise UnsupportedError(
            "The engine is not launched in this process.", hint="Call `ensure_dbos_launched()` first."
        )
    return found


_left: set[str] = set()


def is_engine_launched() -> bool:
    """Whether the engine of this process is launched, and does not stop."""
    return _engine is not None


def set_engine(new: Engine | None) -> None:
    """Put the engine in place, or take it away."""
    global _engine, _stopping
    _engine, _stopping = new, None


def begin_to_stop() -> None:
    """Let the engine be one that stops: new runs need another one, what is under way keeps it."""
    global _engine, _stopping
    _engine, _stopping = None, _engine


def while_launched(workflow: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let a workflow begin when the engine is there, and not end for the reason that it is gone.

    DBOS takes work from its queues before the engine is in place, and until it is destroyed. An error of that time
    would be recorded as the workflow's end; as a cancelled task it goes on elsewhere.
    """

    @functools.wraps(workflow)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        workflow_id = DBOS.workflow_id or ""
        _left.discard(workflow_id)
        try:
            while not is_engine_launched():
                await asyncio.sleep(WAIT_SECONDS)
            return await workflow(*args, **kwargs)
        except Exception:
            if not is_engine_launched():
                raise asyncio.CancelledError from None
            raise
        except BaseException:
            _left.add(workflow_id)
            raise

    return guarded


def left_workflows() -> frozenset[str]:
    """Return the workflows that were left in the middle here: the task was cancelled, or its event loop has ended."""
    return frozenset(_left)


def forget_left(workflow_ids: Iterable[str]) -> None:
    """Forget workflows that were left here and are not this executor's any more."""
    _left.difference_update(workflow_ids)


def set_launcher(launcher: Callable[[], None]) -> None:
    """Say how the engine is launched when a run needs it first; the engine is below the runtime that knows."""
    global _launcher
    _launcher = launcher


def ensure_engine() -> None:
    """Launch the engine of this process if it is not launched."""
    if _engine is None and _launcher is not None:
        _launcher()
