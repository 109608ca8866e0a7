"""One process's way to its Postgres: an engine, a transaction a call, and patience with a lost server."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event, exc

from timestep.errors import DatabaseNotReadyError, EmbeddedPostgresError, SettingsError
from timestep.settings.urls import URL_EXAMPLE, canonical_url, mask_url
from timestep.store.json_text import dump_json

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect

POOL_SIZE = 10
CONNECT_TIMEOUT_SECONDS = 10
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
MAX_NAME_BYTES = 63
"""Longest name of a Postgres database."""

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("timestep")


def one_statement(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function whose writes are one statement: it needs no transaction around it."""
    _SINGLE.add(function)
    return function


_SINGLE: set[Callable[..., Any]] = set()


class EmbeddedServer(Protocol):
    """What `Database` needs of the embedded server; `EmbeddedPostgres` is the real one."""

    def ensure_database(self, name: str) -> Any: ...
    def connect(self, database: str, **kwargs: Any) -> psycopg.Connection[Any]: ...
    def release(self) -> None: ...


class Database:
    """A Postgres database that Timestep uses. One per process and url; made by `open_database`."""

    def __init__(self, url: str, *, application: str, server: EmbeddedServer | None, name: str) -> None:
        self.url = url
        """The url `postgresql://...` with its secrets; never log it."""
        self.name = name
        self.is_embedded = server is not None
        self._server = server
        self._defaults = _connect_defaults(url, application)
        self._lock = Lock()
        self._is_made = False
        self._threads: ThreadPoolExecutor | None = None
        self.engine = self._make_engine()
        self.autocommit_engine = self._make_engine(isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
        """For single statements, with connections of its own: to switch one to and fro costs more than a statement."""

    @property
    def display_url(self) -> str:
        """The url with its password masked, for people."""
        return mask_url(self.url)

    @property
    def creator(self) -> Callable[[], psycopg.Connection[Any]] | None:
        """What DBOS takes as `db_engine_kwargs["creator"]`; None when the url alone is enough."""
        return None if self._server is None else self._connect

    def ensure(self) -> None:
        """Make sure that the database answers; starts the embedded server and creates the database on it.

        Raises:
            DatabaseNotReadyError: it does not answer.
            EmbeddedPostgresError: the embedded server cannot be started.
        """
        if self._server is not None:
            self._server.ensure_database(self.name)
            self._is_made = True
        try:
            self.run_sync(_answer)
        except exc.DBAPIError as error:
            raise not_ready(self, error) from error

    async def run(self, function: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `function(connection, ...)`, run inside one transaction in a thread of the store's own pool.

        A cancelled call ends when the transaction has: it is then stored as a whole or not at all.
        """
        return await self.run_whole(lambda: self.run_sync(function, *args, **kwargs))

    async def run_whole(self, function: Callable[[], T]) -> T:
        """Return what `function` does in a thread of the store's own pool; a cancelled call ends when it has."""
        work = asyncio.get_running_loop().run_in_executor(self._executor(), function)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # seen: the caller wants to hear of the cancellation alone
            raise

    async def run_until_done(
        self, function: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, but wait for a server that is away and try again, without limit.

        Only for a `function` that may be repeated: a server that is lost while it commits may have committed.
        """
        wait_seconds = FIRST_WAIT_SECONDS
        is_waiting = False
        while True:
            try:
                result = await self.run(function, *args, **kwargs)
            except (exc.DBAPIError, exc.TimeoutError, EmbeddedPostgresError) as error:
                if not _is_passing(error):
                    raise
                if not is_waiting:
                    _log.warning("Database %s is away, trying again: %s", self.display_url, _reason(error))
                    is_waiting = True
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
            else:
                if is_waiting:
                    _log.info("Database %s is back.", self.display_url)
                return result

    def run_sync(self, function: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `function(connection, ...)`, run inside one transaction in the calling thread.

        A pooled connection that turns out dead before the commit is replaced once; `function` runs again.
        """
        for is_last in (False, True):
            engine = self.autocommit_engine if function in _SINGLE else self.engine
            with engine.connect() as connection:
                try:
                    result = function(connection, *args, **kwargs)
                except exc.DBAPIError as error:
                    if is_last or not error.connection_invalidated:
                        raise
                    continue
                if engine is self.engine:
                    connection.commit()
                return result
        raise AssertionError("the second attempt returns or raises")

    async def run_apart(self, function: Callable[[], T]) -> T:
        """Return what `function` does in a thread of the store's own pool, without a transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._executor(), function)

    def connect_alone(self) -> psycopg.Connection[Any]:
        """Return a connection of the caller's own, in autocommit: for a session lock that is held for long."""
        return self._connect(autocommit=True)

    def close(self) -> None:
        """Close the connections, end the threads, give up the embedded server. May be called twice."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True)
        self.engine.dispose()
        self.autocommit_engine.dispose()
        if self._server is not None:
            self._server.release()

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="timestep-store")
            return self._threads

    def _make_engine(self, **options: Any) -> sa.Engine:
        engine = sa.create_engine(
            "postgresql+psycopg://",
            pool_size=POOL_SIZE,
            max_overflow=POOL_SIZE,
            hide_parameters=True,
            json_serializer=dump_json,
            **options,
        )
        # Not through the engine's own url: psycopg reads every form that libpq knows, many hosts included.
        event.listen(engine, "do_connect", self._connect_for_engine)
        return engine

    def _connect_for_engine(
        self, dialect: Dialect, record: object, arguments: list[Any], parameters: dict[str, Any]
    ) -> psycopg.Connection[Any]:
        del dialect, record, arguments
        return self._connect(context=parameters["context"])  # carries the JSON serializer

    def _connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        if self._server is None:
            return psycopg.connect(self.url, **self._defaults, **parameters)
        if not self._is_made:
            self._server.ensure_database(self.name)
            self._is_made = True
        return self._server.connect(self.name, **self._defaults, **parameters)


def open_database(url: str | None, *, application: str, embedded_directory: Path | None = None) -> Database:
    """Return the database at `url`, or without one the application's own on the embedded server.

    Connects to nothing yet.

    Raises:
        SettingsError: `url` is not the url of a Postgres database.
    """
    if url is not None:
        canonical = canonical_url(url, source="the database url")
        return Database(canonical, application=application, server=None, name=_database_of(canonical))
    from timestep.embedded_postgres import EmbeddedPostgres  # an optional part, per platform

    name = _database_name(application)
    server = EmbeddedPostgres(embedded_directory)
    return Database(server.url(name), application=application, server=server, name=name)


def server_version(connection: sa.Connection) -> str:
    """Return the version of the Postgres server."""
    return str(connection.exec_driver_sql("show server_version").scalar_one())


def not_ready(database: Database, error: Exception) -> DatabaseNotReadyError:
    """Return the error that says why `database` does not answer and what to do."""
    reason = _reason(error)
    hint = "Start the server, or set PG_CONNECTION_URI to one that runs."
    if "does not exist" in reason and "database" in reason:
        hint = f"Create it with `createdb {database.name}`, or set PG_CONNECTION_URI to another one."
    return DatabaseNotReadyError(f"The database {database.display_url} does not answer: {reason}", hint=hint)


def _answer(connection: sa.Connection) -> None:
    connection.exec_driver_sql("select 1")


def _database_of(url: str) -> str:
    try:
        return str(conninfo_to_dict(url).get("dbname", ""))
    except psycopg.ProgrammingError as error:
        raise SettingsError(
            f"the database url is {mask_url(url)!r}, which Postgres cannot read: {_reason(error)}.",
            hint=f"Write it as {URL_EXAMPLE}.",
        ) from None


def _connect_defaults(url: str, application: str) -> dict[str, Any]:
    """Return libpq parameters that notice a lost host in seconds, without those that the url sets."""
    defaults: dict[str, Any] = {
        "application_name": f"timestep {application}"[:MAX_NAME_BYTES],
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    given = conninfo_to_dict(url)
    return {key: value for key, value in defaults.items() if key not in given}


def _database_name(application: str) -> str:
    name = application.encode()
    if len(name) <= MAX_NAME_BYTES:
        return application
    digest = hashlib.sha256(name).hexdigest()[:8]
    return name[: MAX_NAME_BYTES - 9].decode(errors="ignore") + "-" + digest


def _is_passing(error: exc.DBAPIError | exc.TimeoutError | EmbeddedPostgresError) -> bool:
    if not isinstance(error, exc.DBAPIError) or error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == "25006":  # the server that answers is a standby now
        return True
    # Class 54 is a value over a limit of Postgres: trying again never helps.
    return isinstance(error, exc.OperationalError) and not state.startswith("54")


def _reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__
