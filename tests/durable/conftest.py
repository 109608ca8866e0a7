"""The engine in this process, on a real server, each module with a database and a launch of its own."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID, run_dbos_database_migrations
from hypothesis import settings
from psycopg.rows import dict_row

import timestep
from timestep import home_loop
from timestep.durable import schedules
from timestep.durable.process.engine import engine as launched_engine
from timestep.durable.process.registered_agents import forget_agents
from timestep.durable.start import read_result
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.runtime import chores
from timestep.store.connection import open_database
from timestep.store.migrations import migrate

REPOSITORY = Path(timestep.__path__[0]).parent
LIMIT_SECONDS = 60
TEMPLATE = "template-durable"

_numbers = itertools.count(1)

settings.register_profile("timestep", database=None, deadline=None)  # the checkout may belong to another user
settings.load_profile("timestep")


def wait_until(claim: Callable[[], Any], what: str) -> Any:
    """Wait for a state and return it; the limit only ends a test that hangs. The loop of the test is blocked."""
    limit = time.monotonic() + LIMIT_SECONDS
    with home_loop.stepping_aside(lambda _: None):
        while not (found := claim()):
            assert time.monotonic() < limit, f"never happened: {what}"
            time.sleep(0.02)
    return found


class Journal:
    """The database of the engine, looked at from outside, and the replay of a run."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self.server, self.name = server, name

    def query(self, text: str, *parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with self.server.connect(self.name, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(text, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, text: str, *parameters: Any) -> Any:
        """Return the one value of a query."""
        [row] = self.query(text, *parameters)
        return next(iter(row.values()))

    def steps(self, run_id: str) -> list[str]:
        """Return the names of the recorded steps in the order of their ids."""
        rows = self.query(
            "select function_name from dbos.operation_outputs where workflow_uuid = %s order by function_id", run_id
        )
        return [row["function_name"] for row in rows]

    def output(self, run_id: str, step: str) -> Any:
        """Return the recorded JSON of a step, read by Postgres itself."""
        return self.value(
            "select output::json from dbos.operation_outputs where workflow_uuid = %s and function_name = %s",
            run_id, step,
        )  # fmt: skip

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the row of a run."""
        [row] = self.query("select * from timestep.runs where id = %s", run_id)
        return row

    def status(self, run_id: str) -> str | None:
        """Return the status of a run, None when there is no row."""
        rows = self.query("select status from timestep.runs where id = %s", run_id)
        return rows[0]["status"] if rows else None

    def wait_for(self, query: str) -> None:
        """Wait until a query has a row."""
        wait_until(lambda: self.query(query), query)

    def wait_for_status(self, run_id: str, *statuses: str) -> None:
        """Wait until a run has one of these statuses."""
        wait_until(lambda: self.status(run_id) in statuses, f"{run_id} {statuses}, is {self.status(run_id)}")

    def wait_until_refused(self, workflow_id: str) -> None:
        """Wait until DBOS has given up a workflow that it could not read."""
        query = "select 1 from dbos.workflow_status where workflow_uuid = %s and status in ('ERROR', 'CANCELLED')"
        wait_until(lambda: self.query(query, workflow_id), f"{workflow_id} refused")

    async def replay(self, run_id: str, *, steps: int | None = None) -> tuple[str, Any]:
        """Execute a run again from a copy of its first `steps` records, all when absent; return its id and result.

        What is not among the records is executed. What the run raises is the result.
        """
        recorded = self.query(
            "select function_id from dbos.operation_outputs where workflow_uuid = %s order by function_id", run_id
        )
        ids = [row["function_id"] for row in recorded]
        start = ids[-1] + 1 if steps is None else ids[steps] if steps < len(ids) else ids[-1] + 1
        copy = f"copy-{uuid.uuid4().hex[:8]}"
        with SetWorkflowID(copy):
            await DBOS.fork_workflow_async(run_id, start, queue_name="timestep_segments")
        self.wait_for_status(copy, "succeeded", "failed", "interrupted", "cancelled")
        try:
            return copy, await read_result(copy)
        except Exception as error:
            return copy, error


@pytest.fixture(scope="session")
def data_directory() -> Iterator[Path]:
    """The data directory of these tests' server."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and shutil.disk_usage(memory).free > 2_000_000_000 else Path("/tmp").resolve()
    folder = Path(tempfile.mkdtemp(prefix="timestep-durable-", dir=place))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(data_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server of these tests' own, with a migrated database to copy."""
    server = EmbeddedPostgres(data_directory / "postgres" / "18")
    server.ensure(pin=True)  # each clean-up gives up this process's hold
    with server.connect("postgres", autocommit=True) as connection:
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")
    server.ensure_database(TEMPLATE)
    database = open_database(server.url(TEMPLATE), application="test")
    migrate(database)
    database.close()
    url = server.url(TEMPLATE).replace("postgresql://", "postgresql+psycopg://")
    run_dbos_database_migrations(system_database_url=url, schema="dbos")
    yield server
    server.release()
    server.stop()


@pytest.fixture(scope="module")
def settings_of_module(data_directory: Path) -> Iterator[pytest.MonkeyPatch]:
    """An environment without settings of the machine's own; modules may add to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PG_CONNECTION_URI", "TIMESTEP_DB_URL", "DBOS_SYSTEM_DATABASE_URL", "OPENAI_API_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("TIMESTEP_DATA_DIR", str(data_directory))
        patch.setenv("TIMESTEP_PROBE_LOCAL", "0")
        patch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
        yield patch


@pytest.fixture(scope="module")
def new_database(server: EmbeddedPostgres) -> Callable[[], str]:
    """Make a migrated database; its name is also that of the application."""

    def make() -> str:
        name = f"app-{next(_numbers)}"
        with server.connect("postgres", autocommit=True) as connection:
            connection.execute(f'create database "{name}" template "{TEMPLATE}"'.encode())
        return name

    return make


@pytest.fixture
def journal_of(server: EmbeddedPostgres) -> Callable[[str], Journal]:
    """Look at a database by its name."""
    return lambda name: Journal(server, name)


@pytest.fixture(scope="module")
def engine(
    server: EmbeddedPostgres, new_database: Callable[[], str], settings_of_module: pytest.MonkeyPatch
) -> Iterator[Journal]:
    """The launched engine of this module."""
    name = new_database()
    settings_of_module.setenv("TIMESTEP_APP_NAME", name)
    timestep.cleanup_dbos()
    timestep.configure_dbos()
    timestep.ensure_dbos_launched()
    yield Journal(server, name)
    timestep.cleanup_dbos()


@pytest.fixture(autouse=True)
def _nothing_registered() -> Iterator[None]:
    forget_agents()
    schedules._waiting.clear()
    yield
    forget_agents()
    schedules._waiting.clear()


@pytest.fixture
def new_id() -> str:
    """A run id of the test's own."""
    return f"run-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    return wait_until


@pytest.fixture
def sql_engine(engine: Journal) -> sa.Engine:
    """The store's own connections."""
    return launched_engine().database.engine


@pytest.fixture
def quick_chores(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the executor compare runs with their workflows each second, not every ten."""
    monkeypatch.setattr(chores, "LOOSE_ENDS_SECONDS", 1)
