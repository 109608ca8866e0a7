"""What the engine of this process stands on; `runtime.py` puts it here when it launches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dbos import DBOSClient

from timestep.errors import UnsupportedError
from timestep.settings import Settings
from timestep.store.connection import Database


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The launched engine of a process."""

    settings: Settings
    database: Database
    client: DBOSClient
    executor_id: str
    application_version: str


_engine: Engine | None = None
_launcher: Callable[[], None] | None = None


def engine() -> Engine:
    """Return the engine of this process.

    Raises:
        UnsupportedError: it is not launched.
    """
    if _engine is None:
        raise UnsupportedError(
            "The engine is not launched in this process.", hint="Call `ensure_dbos_launched()` first."
        )
    return _engine


def is_engine_launched() -> bool:
    """Whether the engine of this process is launched."""
    return _engine is not None


def set_engine(new: Engine | None) -> None:
    """Put the engine in place, or take it away."""
    global _engine
    _engine = new


def set_launcher(launcher: Callable[[], None]) -> None:
    """Say how the engine is launched when a run needs it first; the engine is below the runtime that knows."""
    global _launcher
    _launcher = launcher


def ensure_engine() -> None:
    """Launch the engine of this process if it is not launched."""
    if _engine is None and _launcher is not None:
        _launcher()
