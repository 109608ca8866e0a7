"""The database of these settings before anything uses it: how it is, starting its server, and making its schemas."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import exc

from timestep.errors import DatabaseNotReadyError, EmbeddedPostgresError
from timestep.settings import Settings, mask_url
from timestep.store.connection import Database, open_database, server_version
from timestep.store.migrations import (
    HEAD_REVISION,
    check_schema,
    find_dbos_revision,
    migrate,
    stored_revision,
)
from timestep.store.process_database import embedded_directory

if TYPE_CHECKING:
    from timestep.embedded_postgres import EmbeddedPostgres


@dataclass(frozen=True, kw_only=True)
class DatabaseState:
    """How the database is.

    `stopped` is the embedded server at rest; `missing` means that it runs without the application's database.
    """

    kind: Literal["embedded", "configured"]
    state: Literal["running", "starting", "stopped", "missing", "unreachable"]
    source: str
    url: str
    version: str | None = None
    pid: int | None = None
    directory: Path | None = None
    log_path: Path | None = None
    problem: str | None = None
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class SchemaState:
    """How schema `timestep` is; `revision` is None when it is not there.

    `problem` says why it does not fit this code, None when it does or is not there. `is_older`: a migration mends that.
    """

    revision: str | None
    is_current: bool
    is_older: bool
    problem: str | None = None
    hint: str | None = None


def embedded_server(settings: Settings) -> EmbeddedPostgres:
    """Return the embedded server of these settings; nothing is started."""
    from timestep.embedded_postgres import EmbeddedPostgres

    return EmbeddedPostgres(embedded_directory(settings))


def open_settings_database(settings: Settings) -> Database:
    """Return the database of these settings; its first use starts the embedded server."""
    return open_database(
        settings.database_url, application=settings.name, embedded_directory=embedded_directory(settings)
    )


def open_without_starting(settings: Settings) -> Database:
    """Return the database of these settings as if it were somebody else's: no use of it starts a server."""
    return open_database(open_settings_database(settings).url, application=settings.name)


def without_password(url: str) -> tuple[str, str | None]:
    """Return a url as libpq's words, which other users of the machine may read, and its password; None without one."""
    parameters = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    password = parameters.pop("password", None)
    return make_conninfo("", **parameters), password


def look_at_database(settings: Settings) -> DatabaseState:
    """Return how the database is. Starts nothing."""
    if settings.database_url is not None:
        return _look_at_configured(settings, settings.database_url)
    try:
        server = embedded_server(settings)
        status = server.status()
        url = open_settings_database(settings).url
    except EmbeddedPostgresError as error:
        return DatabaseState(
            kind="embedded",
            state="unreachable",
            source=settings.database_source,
            url="",
            problem=str(error),
            hint=error.hint,
        )
    state: Literal["running", "starting", "stopped", "missing"] = status.state
    if state == "running" and not _has_database(settings):
        state = "missing"
    return DatabaseState(
        kind="embedded",
        state=state,
        source=settings.database_source,
        url=url,
        version=status.version,
        pid=status.pid,
        directory=status.directory,
        log_path=status.log_path,
    )


def look_at_schema(database: Database) -> SchemaState:
    """Return how schema `timestep` is. Changes nothing.

    Raises:
        DatabaseNotReadyError: the database does not answer.
    """
    revision = stored_revision(database)
    is_current = revision == HEAD_REVISION
    is_older = revision is not None and revision < HEAD_REVISION
    try:
        if revision is not None:
            check_schema(database)
    except DatabaseNotReadyError as error:
        return SchemaState(
            revision=revision, is_current=is_current, is_older=is_older, problem=str(error), hint=error.hint
        )
    return SchemaState(revision=revision, is_current=is_current, is_older=is_older)


def dbos_revision(database: Database) -> int | None:
    """Return the revision of schema `dbos`; None when it is not there."""
    return database.run_sync(find_dbos_revision)


@contextlib.contextmanager
def explaining_refusals() -> Generator[None]:
    """Say what to do where the database refuses to be looked at.

    Raises:
        DatabaseNotReadyError: in the place of the driver's error.
    """
    try:
        yield
    except exc.DBAPIError as error:
        raise DatabaseNotReadyError(
            " ".join(str(error.orig).split()),
            hint="Run `timestep db migrate` as a user with the rights, or give them to this one.",
        ) from error


def migrate_schemas(database: Database) -> tuple[bool, str]:
    """Make or upgrade the tables of DBOS and of Timestep; return whether the latter changed, and their revision.

    Safe to repeat.

    Raises:
        DatabaseNotReadyError: the database does not answer, or its schema is newer than this code.
    """
    if database.is_embedded:
        database.ensure()
    migrate_dbos(database.url)
    return migrate(database), HEAD_REVISION


def migrate_dbos(database_url: str) -> None:
    """Make or upgrade the tables of DBOS; safe to repeat.

    Raises:
        DatabaseNotReadyError: the database does not answer.
    """
    from dbos import DBOS  # takes half a second, and what looks at a database alone does without

    logging.getLogger("dbos").setLevel(logging.ERROR)  # what matters of its progress is printed by the command
    try:
        DBOS.migrate(database_url)
    except exc.OperationalError as error:
        raise DatabaseNotReadyError(
            f"The database {mask_url(database_url)} does not answer: {' '.join(str(error.orig).split())}",
            hint="Start the server, or set PG_CONNECTION_URI to one that runs.",
        ) from error


def _look_at_configured(settings: Settings, url: str) -> DatabaseState:
    database = open_without_starting(settings)
    try:
        database.ensure()
        version = database.run_sync(server_version)
    except DatabaseNotReadyError as error:
        return DatabaseState(
            kind="configured",
            state="unreachable",
            source=settings.database_source,
            url=mask_url(url),
            problem=str(error),
            hint=error.hint,
        )
    finally:
        database.close()
    return DatabaseState(
        kind="configured",
        state="running",
        source=settings.database_source,
        url=mask_url(url),
        version=version,
    )


def _has_database(settings: Settings) -> bool:
    database = open_without_starting(settings)
    try:
        database.ensure()
    except DatabaseNotReadyError:
        return False
    finally:
        database.close()
    return True
