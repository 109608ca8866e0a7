"""The one database of this process, opened and migrated on first use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import platformdirs

from timestep.settings import Settings, current_settings
from timestep.store.connection import Database, open_database
from timestep.store.migrations import check_schema, migrate

T = TypeVar("T")

_lock = threading.Lock()
_current: Database | None = None


def current_database() -> Database:
    """Return the database of this process; the first call opens it as the settings say and migrates it.

    The first call blocks while the embedded server starts, for seconds on a new machine. It leaves nothing
    behind when it fails, so the next call tries again.

    Raises:
        DatabaseNotReadyError: it does not answer, or its schema does not fit this code.
        EmbeddedPostgresError: the embedded server cannot be started.
        SettingsError: the settings name no usable database.
    """
    global _current
    with _lock:
        if _current is None:
            _current = _open(current_settings())
        return _current


async def open_current_database() -> Database:
    """As `current_database`, without blocking the event loop."""
    return _current or await _in_thread(current_database)


async def open_other_database(url: str) -> Database:
    """Return a database of its own at `url`, migrated, whatever the settings say; the caller closes it.

    Raises:
        DatabaseNotReadyError: it does not answer, or its schema is newer than this code.
        SettingsError: `url` is not the url of a Postgres database.
    """
    database = open_database(url, application="timestep")
    await _in_thread(lambda: _make_ready(database, migrate))
    return database


def reset_current_database() -> None:
    """Close and forget the database of this process; the next use opens it again. May be called twice."""
    global _current
    with _lock:
        database, _current = _current, None
    if database is not None:
        database.close()


def embedded_directory(settings: Settings) -> Path | None:
    """Return the embedded server's folder in a chosen data directory; None leaves it to the server."""
    if settings.data_directory == Path(platformdirs.user_data_dir("timestep", appauthor=False)):
        return None
    from timestep.embedded_postgres.server import MAJOR_VERSION  # an optional part, per platform

    return settings.data_directory / "postgres" / MAJOR_VERSION


def _open(settings: Settings) -> Database:
    database = open_database(
        settings.database_url, application=settings.name, embedded_directory=embedded_directory(settings)
    )
    _make_ready(database, migrate if settings.run_migrations else check_schema)
    return database


def _make_ready(database: Database, check: Callable[[Database], object]) -> None:
    try:
        check(database)
    except Exception:
        database.close()
        raise


async def _in_thread(function: Callable[[], T]) -> T:
    """Run `function` in a thread of its own: the loop's default executor may be full of others' work."""
    threads = ThreadPoolExecutor(1, thread_name_prefix="timestep-open")
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, function)
    finally:
        threads.shutdown(wait=False)
