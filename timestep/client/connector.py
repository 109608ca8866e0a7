"""What a program stands on that looks at runs and decides about them: a database, and DBOS's client on it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Concatenate, ParamSpec, TypeVar

from dbos import DBOSClient

from timestep.client.database import migrate_dbos
from timestep.client.serializer import JournalSerializer, refuse_pickles
from timestep.errors import DatabaseNotReadyError
from timestep.ids import DBOS_SCHEMA
from timestep.settings import current_settings
from timestep.store.connection import Database
from timestep.store.migrations import has_dbos
from timestep.store.process_database import current_database, reset_current_database

P = ParamSpec("P")
T = TypeVar("T")


class Connector:
    """The way of a program to its runs; every verb of this floor takes one first.

    It launches nothing. Many threads may use it at once.
    """

    def __init__(self, database: Database, *, application: str | None = None, dbos: DBOSClient | None = None) -> None:
        """Connect to nothing yet.

        Args:
            application: Whose runs, queues and schedules these are; that of the settings when absent.
            dbos: A client of the caller's, who closes it; one is connected at its first use when absent.
        """
        self.database = database
        self._application = application
        self._dbos, self._own = dbos, None
        self._lock = threading.Lock()

    @property
    def application(self) -> str:
        """The application whose executors take what is queued here."""
        return self._application if self._application is not None else current_settings().name

    @property
    def dbos(self) -> DBOSClient:
        """DBOS's client for this database; the first use connects it, and blocks."""
        with self._lock:
            if self._dbos is None:
                self._dbos = self._own = connect_client(self.database, name=self.application)
            return self._dbos

    async def run(self, verb: Callable[Concatenate[Connector, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `verb(connector, ...)`, run in a thread of the store's own pool; a cancelled call ends when it has."""
        return await self.database.run_whole(lambda: verb(self, *args, **kwargs))

    def close(self) -> None:
        """Close the client that was connected here; the database is the caller's. May be called twice."""
        with self._lock:
            own, self._own = self._own, None
            if own is not None:
                self._dbos = None
        if own is not None:
            own.destroy()


@contextlib.contextmanager
def open_connector() -> Generator[Connector]:
    """Open the database of this process, the configured or the embedded one, with both schemas in place.

    At the end it is closed.

    Raises:
        DatabaseNotReadyError: it does not answer, or a schema is missing and may not be made.
    """
    database = current_database()
    try:
        if not database.run_sync(has_dbos):
            if not current_settings().run_migrations:
                raise DatabaseNotReadyError(f"The schema {DBOS_SCHEMA!r} is not in {database.display_url}.")
            migrate_dbos(database.url)
        with contextlib.closing(Connector(database)) as connector:
            yield connector
    finally:
        reset_current_database()


def connect_client(database: Database, *, name: str) -> DBOSClient:
    """Return a client of DBOS for the application `name`, on the connections of `database`.

    Both schemas must be there. It reads and writes JSON; pickles are refused.
    """
    refuse_pickles()
    return DBOSClient(
        system_database_url=sqlalchemy_url(database),
        system_database_engine=database.engine,
        dbos_system_schema=DBOS_SCHEMA,
        serializer=JournalSerializer(),
        use_listen_notify=True,
        application_name=name,
    )


def sqlalchemy_url(database: Database) -> str:
    """Return the database's url as SQLAlchemy writes it."""
    return database.url.replace("postgresql://", "postgresql+psycopg://", 1)
