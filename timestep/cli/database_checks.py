"""The database as the commands of `db` and `doctor` look at it: without starting or making anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import platformdirs
import sqlalchemy as sa

from timestep.errors import DatabaseNotReadyError, EmbeddedPostgresError
from timestep.settings import Settings, mask_url
from timestep.store.connection import Database, open_database

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


def embedded_directory(settings: Settings) -> Path | None:
    """Return the server's folder in a data directory that was chosen; None lets the server choose its own."""
    if settings.data_directory == Path(platformdirs.user_data_dir("timestep", appauthor=False)):
        return None
    from timestep.embedded_postgres.server import MAJOR_VERSION

    return settings.data_directory / "postgres" / MAJOR_VERSION


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


def _look_at_configured(settings: Settings, url: str) -> DatabaseState:
    database = open_without_starting(settings)
    try:
        database.ensure()
        version = database.run_sync(_read_version)
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


def _read_version(connection: sa.Connection) -> str:
    return str(connection.execute(sa.text("show server_version")).scalar_one())


def migrate_dbos(database_url: str) -> None:
    """Make or upgrade the tables of DBOS; safe to repeat.

    Raises:
        DatabaseNotReadyError: the database does not answer.
    """
    import logging

    from dbos import DBOS
    from sqlalchemy import exc

    logging.getLogger("dbos").setLevel(logging.ERROR)  # what matters of its progress is printed here
    try:
        DBOS.migrate(database_url)
    except exc.OperationalError as error:
        raise DatabaseNotReadyError(
            f"The database {mask_url(database_url)} does not answer: {' '.join(str(error.orig).split())}",
            hint="Start the server, or set PG_CONNECTION_URI to one that runs.",
        ) from error
