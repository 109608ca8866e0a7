"""The desk of commands that look at runs, or start them elsewhere: a database and a client, launching nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

import sqlalchemy as sa
from dbos import DBOSClient

from timestep.cli.database_checks import migrate_dbos
from timestep.cli.quiet import quieten
from timestep.client.runs import connect_client
from timestep.errors import DatabaseNotReadyError
from timestep.ids import DBOS_SCHEMA
from timestep.settings import current_settings
from timestep.store.connection import Database
from timestep.store.executors import ExecutorRow, list_live_executors
from timestep.store.process_database import current_database, reset_current_database


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What a command works with."""

    database: Database
    client: DBOSClient

    def live_executors(self, agent: str | None = None) -> list[ExecutorRow]:
        """Return the executors that are alive, those that take runs of `agent` when it is given."""
        found = self.database.run_sync(list_live_executors)
        return [each for each in found if agent is None or agent in each.agents]


@contextlib.contextmanager
def open_desk() -> Generator[Desk]:
    """Open the configured database, or the embedded one, with both schemas in place.

    Raises:
        DatabaseNotReadyError: it does not answer, or a schema is missing and may not be made.
    """
    quieten()
    settings = current_settings()
    database = current_database()
    try:
        if not database.run_sync(_has_dbos):
            if not settings.run_migrations:
                raise DatabaseNotReadyError(f"The schema {DBOS_SCHEMA!r} is not in {database.display_url}.")
            migrate_dbos(database.url)
        client = connect_client(database, name=settings.name)
        try:
            yield Desk(database=database, client=client)
        finally:
            client.destroy()
    finally:
        reset_current_database()


def _has_dbos(connection: sa.Connection) -> bool:
    found = sa.select(sa.func.to_regclass(f"{DBOS_SCHEMA}.workflow_status"))
    return connection.execute(found).scalar() is not None
