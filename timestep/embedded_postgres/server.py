"""The embedded server as its users see it: ensure it, connect to it, let it go."""

from __future__ import annotations

import atexit
import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
import psycopg
from psycopg import sql

from timestep.embedded_postgres import cluster, locks
from timestep.embedded_postgres.account import choose_account
from timestep.embedded_postgres.binaries import copy_once
from timestep.embedded_postgres.layout import Layout
from timestep.errors import EmbeddedPostgresError

PLATFORM = sys.platform
MAJOR_VERSION = "18"
START_TIMEOUT_SECONDS = 90.0
STOP_TIMEOUT_SECONDS = 60.0
EXIT_TIMEOUT_SECONDS = 10.0
ROOT_DATA_FOLDER = Path("/var/lib/timestep")
DATABASE_NAME_LIMIT_BYTES = 63


def default_directory() -> Path:
    """Return the user's own folder for the server: below $TIMESTEP_DATA_DIR, else the platform's data folder.

    For root it is below /var/lib/timestep where the server's account cannot enter root's home.
    """
    configured = os.environ.get("TIMESTEP_DATA_DIR")
    folder = Path(configured) if configured else Path(platformdirs.user_data_dir("timestep"))
    if not configured and PLATFORM != "win32" and os.geteuid() == 0 and _is_closed(folder):
        folder = ROOT_DATA_FOLDER
    return folder / "postgres" / MAJOR_VERSION


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """What is known about the server without starting it.

    `starting` means: its process lives but does not answer, so it starts, recovers or stops.
    """

    state: Literal["running", "stopped", "starting"]
    pid: int | None
    directory: Path
    version: str | None
    log_path: Path


class EmbeddedPostgres:
    """A Postgres server that starts by itself, is shared by all processes of a user and stops with the last.

    Objects of the same directory, in any process, stand for the same server.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Name the server of `directory`; nothing is made or started yet."""
        self.directory = Path(directory or default_directory()).expanduser().resolve()
        self._layout = Layout(directory=self.directory)

    def ensure(self, *, pin: bool = False, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Start the server if it does not answer, and hold it until this process ends.

        May be called any number of times, from any thread; one connect when all is well. With `pin` the
        server outlives its holders, until `stop()`.

        Raises:
            EmbeddedPostgresError: the server cannot be started; nothing half made is left.
        """
        _check_platform()
        if self._is_held and not pin and cluster.ask(self._layout).source == "ours":
            return
        deadline = locks.Deadline(timeout_seconds)
        with _explained(self.directory):
            self._prepare_folder()
            with locks.exclusive(self._layout.lock, deadline) as lock:
                is_new = self._take_hold()
                try:
                    self._start(lock, deadline)
                    if pin:
                        self._layout.pinned.touch(mode=0o600)
                except (OSError, EmbeddedPostgresError):
                    if is_new:
                        _holds.pop(self.directory).close()
                    raise

    def ensure_database(self, name: str) -> None:
        """Create the database if it is missing. Safe when many processes call it at once.

        Raises:
            EmbeddedPostgresError: the name is empty or longer than 63 bytes.
        """
        if not 0 < len(name.encode()) <= DATABASE_NAME_LIMIT_BYTES:
            raise EmbeddedPostgresError(
                f"{name!r} cannot name a database: it must have 1 to {DATABASE_NAME_LIMIT_BYTES} bytes.",
                hint="Choose a shorter application name.",
            )
        with self.connect("postgres", autocommit=True) as connection:
            query = "select 1 from pg_database where datname = %s"
            if connection.execute(query, [name]).fetchone():
                return
            try:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return  # somebody else has created it in between

    def connect(self, database: str, **kwargs: Any) -> psycopg.Connection[Any]:
        """Open a psycopg connection; `kwargs` go to `psycopg.connect`. Brings the server up when it is not.

        Serves as the `creator` of a SQLAlchemy engine: after a crash of the server the pool's next connection
        restarts it.

        Raises:
            EmbeddedPostgresError: the server cannot be started.
            psycopg.OperationalError: the server is up and refuses, for example for want of such a database.
        """
        if self._is_held:
            try:
                return psycopg.connect(self.conninfo(database), **kwargs)
            except psycopg.OperationalError:
                pass  # down, or it refuses: ensure() finds out, and the second try tells
        self.ensure()
        return psycopg.connect(self.conninfo(database), **kwargs)

    def conninfo(self, database: str = "postgres") -> str:
        """Return the libpq conninfo of a database. Starts nothing."""
        _check_platform()
        return self._layout.conninfo(database)

    def url(self, database: str) -> str:
        """Return `postgresql://postgres@/<database>?host=<socket folder>&port=5432`. Starts nothing."""
        _check_platform()
        return self._layout.url(database)

    @property
    def binaries_path(self) -> Path:
        """The folder of `psql`, `pg_dump` and the others; they are copied there first if they are missing."""
        _check_platform()
        with _explained(self.directory):
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            return copy_once(
                self.directory.parent,
                major=self._major_version,
                deadline=locks.Deadline(START_TIMEOUT_SECONDS),
            ).folder

    def status(self) -> ServerStatus:
        """Tell how the server is. Starts and changes nothing."""
        _check_platform()
        answer, pid = cluster.ask(self._layout), cluster.find_postmaster(self._layout)
        state: Literal["running", "stopped", "starting"] = "stopped" if pid is None else "starting"
        if answer.source == "ours":
            state = "running"
        return ServerStatus(
            state=state, pid=pid, directory=self.directory, version=answer.version, log_path=self._layout.log
        )

    def release(self) -> None:
        """Give up this process's hold; the last one out stops the server unless it is pinned.

        Happens by itself when the process exits. A killed process cannot do it: the server then runs on until
        the next last one out.
        """
        hold = _holds.pop(self.directory, None)
        if hold is None or not hold.is_mine:  # a fork must not release its parent's hold
            return
        deadline = locks.Deadline(EXIT_TIMEOUT_SECONDS)
        try:
            if not self.directory.is_dir():
                return
            with _explained(self.directory), locks.exclusive(self._layout.lock, deadline):
                is_last = hold.is_last()
                hold.close()
                if is_last and not self._layout.pinned.exists():
                    cluster.stop(self._layout, deadline)
        finally:
            hold.close()

    def stop(self) -> bool:
        """Stop the server whoever holds it, and unpin it. False when it was not running.

        Raises:
            EmbeddedPostgresError: it has not stopped within a minute.
        """
        _check_platform()
        if not self.directory.is_dir():
            return False
        deadline = locks.Deadline(STOP_TIMEOUT_SECONDS)
        with _explained(self.directory), locks.exclusive(self._layout.lock, deadline):
            self._layout.pinned.unlink(missing_ok=True)
            return cluster.stop(self._layout, deadline)

    @property
    def _is_held(self) -> bool:
        hold = _holds.get(self.directory)
        return hold is not None and hold.is_mine

    @property
    def _major_version(self) -> str:
        try:
            return (self._layout.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return MAJOR_VERSION

    def _prepare_folder(self) -> None:
        if not str(self.directory).isprintable():  # nor is a path that is not UTF-8
            raise EmbeddedPostgresError(
                f"Postgres cannot work in {str(self.directory)!r}: the path has unprintable characters.",
                hint="Set TIMESTEP_DATA_DIR to a folder with a plain path.",
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _take_hold(self) -> bool:
        """Register this process as a holder; False when it is one already."""
        old = _holds.get(self.directory)
        if old is not None and old.is_current:
            return False
        _holds[self.directory] = locks.Hold(self._layout.holders)
        if old is not None:
            old.close()
        if self.directory not in _released_at_exit:
            _released_at_exit.add(self.directory)
            atexit.register(_release_at_exit, self)
        return True

    def _start(self, lock: int, deadline: locks.Deadline) -> None:
        if cluster.ask(self._layout).source == "ours":
            return
        account = choose_account()
        binaries = copy_once(self.directory.parent, major=self._major_version, deadline=deadline)
        if account.is_switched:
            self.directory.chmod(0o711)
        if not account.can_enter(self.directory):
            raise EmbeddedPostgresError(
                f"The account that the server runs as cannot enter {self.directory}.",
                hint="Set TIMESTEP_DATA_DIR to a folder whose parents are open to all users, "
                f"for example {ROOT_DATA_FOLDER}.",
            )
        cluster.create(self._layout, binaries, account, lock=lock)
        cluster.start(self._layout, binaries, account, deadline)


_holds: dict[Path, locks.Hold] = {}
_released_at_exit: set[Path] = set()


def _release_at_exit(server: EmbeddedPostgres) -> None:
    try:
        server.release()
    except EmbeddedPostgresError:
        return  # the hold ends with the process; whoever leaves last after us stops the server


def _check_platform() -> None:
    if PLATFORM == "win32":
        raise EmbeddedPostgresError(
            "The embedded Postgres is not supported on Windows yet.",
            hint="Set PG_CONNECTION_URI to a Postgres server of your own, or work inside WSL.",
        )


def _is_closed(folder: Path) -> bool:
    """Tell whether the server's account cannot enter the nearest folder that exists."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        return not choose_account().can_enter(existing)
    except EmbeddedPostgresError:
        return False  # ensure() raises it


@contextmanager
def _explained(directory: Path) -> Generator[None]:
    """Turn the operating system's errors into ours, which name the path and what to do."""
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else directory
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise cluster.no_space(directory) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise EmbeddedPostgresError(
                f"{path} cannot be written: {os.strerror(error.errno)}.",
                hint="Make it writable for this user, or set TIMESTEP_DATA_DIR to a folder that is.",
            ) from error
        raise EmbeddedPostgresError(
            f"The embedded Postgres cannot use {path}: {error.strerror or error}.",
            hint="Set TIMESTEP_DATA_DIR to another folder, or PG_CONNECTION_URI to a server of your own.",
        ) from error
