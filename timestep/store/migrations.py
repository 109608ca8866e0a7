"""Bring schema `timestep` up to date, and refuse one that does not fit this code."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from timestep.errors import DatabaseNotReadyError
from timestep.ids import DBOS_SCHEMA, SCHEMA
from timestep.store.connection import Database, not_ready

HEAD_REVISION = "0008"
"""The newest migration. Revisions are numbers with leading zeros: older and newer can be told apart."""

_LOCK = "timestep migrate"
_NO_SUCH_TABLE = ("42P01", "3F000")
_SCHEMA_COMMENT = "Timestep: agents, runs, sessions, snapshots, approvals and usage. See docs/schema.md."


def migrate(database: Database) -> bool:
    """Bring the schema up to date; return whether there was anything to do.

    Safe to call from many processes at once and again; costs one query when up to date. All migrations run in
    one transaction: they are done together or not at all.

    Raises:
        DatabaseNotReadyError: the database does not answer, or its schema is newer than this code.
    """
    revision = stored_revision(database)
    if revision == HEAD_REVISION:
        return False
    _refuse_newer(database, revision)
    return database.run_sync(_upgrade, database)


def check_schema(database: Database) -> None:
    """Return when the schema fits this code.

    Raises:
        DatabaseNotReadyError: the database does not answer, or its schema is missing, older or newer.
    """
    revision = stored_revision(database)
    _refuse_newer(database, revision)
    if revision != HEAD_REVISION:
        found = "has no Timestep schema" if revision is None else f"is at schema revision {revision}"
        raise DatabaseNotReadyError(
            f"The database {database.display_url} {found}; this version of Timestep needs {HEAD_REVISION}.",
            hint="Run `timestep db migrate`.",
        )


def stored_revision(database: Database) -> str | None:
    """Return the revision that the database is at; None when it was never migrated.

    Raises:
        DatabaseNotReadyError: the database does not answer.
    """
    try:
        return database.run_sync(_read_revision)
    except exc.ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) in _NO_SUCH_TABLE:
            return None
        raise
    except exc.DBAPIError as error:
        raise not_ready(database, error) from error


def has_dbos(connection: sa.Connection) -> bool:
    """Return whether the tables of DBOS are there."""
    return _has_table(connection, f"{DBOS_SCHEMA}.workflow_status")


def find_dbos_revision(connection: sa.Connection) -> int | None:
    """Return the revision of DBOS's schema; None when it is not there."""
    table = f"{DBOS_SCHEMA}.dbos_migrations"
    if not _has_table(connection, table):
        return None
    return connection.execute(sa.text(f"select max(version) from {table}")).scalar()


def migrations_directory() -> Path:
    """Return the folder of the migrations: in the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data" / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _has_table(connection: sa.Connection, name: str) -> bool:
    return connection.execute(sa.select(sa.func.to_regclass(name))).scalar() is not None


def _read_revision(connection: sa.Connection) -> str | None:
    return connection.execute(sa.text(f"select version_num from {SCHEMA}.alembic_version")).scalar()


def _upgrade(connection: sa.Connection, database: Database) -> bool:
    from alembic import command  # takes 0.2 s, and is needed once in a database's life
    from alembic.config import Config

    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(_LOCK, 0))))
    revision = _read_revision(connection) if _has_table(connection, f"{SCHEMA}.alembic_version") else None
    if revision == HEAD_REVISION:
        return False  # another process was faster
    _refuse_newer(database, revision)
    if not sa.inspect(connection).has_schema(SCHEMA):
        connection.exec_driver_sql(f"create schema {SCHEMA}")
        connection.exec_driver_sql(f"comment on schema {SCHEMA} is '{_SCHEMA_COMMENT}'")
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    command.upgrade(config, HEAD_REVISION)
    return True


def _refuse_newer(database: Database, revision: str | None) -> None:
    if revision is None or (revision.isdecimal() and int(revision) <= int(HEAD_REVISION)):
        return
    raise DatabaseNotReadyError(
        f"The database {database.display_url} is at schema revision {revision}, newer than this version of "
        f"Timestep, which knows {HEAD_REVISION}.",
        hint="Upgrade it with `pip install --upgrade timestep`.",
    )
