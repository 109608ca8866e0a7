"""What holds for every test, and what tests of all folders share: a server in memory, databases, a launched engine.

What is heavy is imported where it is used: the unit tests start without it.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from system_packages import pytest_runtest_setup  # noqa: F401 - a hook of pytest

if TYPE_CHECKING:
    import sqlalchemy as sa
    from engine_journal import Journal

    from timestep.embedded_postgres import EmbeddedPostgres
    from timestep.store.connection import Database

MEMORY_NEEDED_BYTES = 2_000_000_000
TEMPLATE = "template_migrated"
CONFIGURED = (
    "PG_CONNECTION_URI", "TIMESTEP_DB_URL", "DBOS_SYSTEM_DATABASE_URL", "TIMESTEP_MODEL_PROVIDERS",
    "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_API_KEY", "OLLAMA_HOST",
)  # fmt: skip
"""Variables that would make a test depend on the machine."""

_numbers = itertools.count(1)

settings.register_profile("timestep", database=None, deadline=None)  # the checkout may belong to another user
settings.load_profile("timestep")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets its background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_directory() -> Iterator[Path]:
    """The data directory of the server that tests share, in memory where there is plenty."""
    memory = Path("/dev/shm")
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_NEEDED_BYTES
    folder = Path(tempfile.mkdtemp(prefix="timestep-test-", dir=memory if is_roomy else Path("/tmp").resolve()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(data_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server for all tests that do not stop it, with a migrated database to copy."""
    from dbos import run_dbos_database_migrations

    from timestep.embedded_postgres import EmbeddedPostgres
    from timestep.store.connection import open_database
    from timestep.store.migrations import migrate

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


@pytest.fixture(scope="session")
def server(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The shared server; folders whose tests have a server of another kind replace it."""
    return postgres


@pytest.fixture(scope="module")
def settings_of_module(data_directory: Path) -> Iterator[pytest.MonkeyPatch]:
    """An environment without settings of the machine's own; modules may add to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CONFIGURED:
            patch.delenv(name, raising=False)
        patch.setenv("TIMESTEP_DATA_DIR", str(data_directory))
        patch.setenv("TIMESTEP_PROBE_LOCAL", "0")
        patch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
        yield patch


@pytest.fixture(scope="module")
def new_database(postgres: EmbeddedPostgres) -> Iterator[Callable[[], str]]:
    """Make a migrated database, which goes with the module; its name is also that of the application."""
    names: list[str] = []

    def make() -> str:
        names.append(f"app-{next(_numbers)}")
        with postgres.connect("postgres", autocommit=True) as connection:
            connection.execute(f'create database "{names[-1]}" template "{TEMPLATE}"'.encode())
        return names[-1]

    yield make
    with postgres.connect("postgres", autocommit=True) as connection:
        for name in names:
            connection.execute(f'drop database "{name}" with (force)'.encode())


@pytest.fixture
def journal_of(postgres: EmbeddedPostgres) -> Callable[[str], Journal]:
    """Look at a database by its name."""
    from engine_journal import Journal

    return lambda name: Journal(postgres, name)


@pytest.fixture(scope="module")
def engine(
    postgres: EmbeddedPostgres, new_database: Callable[[], str], settings_of_module: pytest.MonkeyPatch
) -> Iterator[Journal]:
    """The launched engine of this module."""
    from engine_journal import Journal

    import timestep

    name = new_database()
    settings_of_module.setenv("TIMESTEP_APP_NAME", name)
    timestep.cleanup_dbos()
    timestep.configure_dbos()
    timestep.ensure_dbos_launched()
    yield Journal(postgres, name)
    timestep.cleanup_dbos()


@pytest.fixture(autouse=True)
def _nothing_registered() -> Iterator[None]:
    """Let no test have agents or schedules of another one."""
    _forget_registered()
    yield
    _forget_registered()


def _forget_registered() -> None:
    if agents := sys.modules.get("timestep.durable.process.registered_agents"):
        agents.forget_agents()
    if schedules := sys.modules.get("timestep.durable.schedules"):
        schedules._waiting.clear()


@pytest.fixture
def new_id() -> str:
    """A run id of the test's own."""
    return f"run-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    from engine_journal import wait_until

    return wait_until


@pytest.fixture
def sql_engine(engine: Journal) -> sa.Engine:
    """The store's own connections."""
    from timestep.durable.process.engine import engine as launched_engine

    return launched_engine().database.engine


@pytest.fixture
def quick_chores(engine: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the executor compare runs with their workflows each second, not every ten."""
    from timestep.runtime import chores

    monkeypatch.setattr(chores, "LOOSE_ENDS_SECONDS", 1)


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database to copy."""
    return TEMPLATE


@pytest.fixture
def new_url(postgres: EmbeddedPostgres) -> Iterator[Callable[..., str]]:
    """Make a database, empty or copied from a template, and return its url; it goes with the test."""
    names: list[str] = []

    def make(template: str = "template0") -> str:
        names.append(f"test_{next(_numbers)}")
        with postgres.connect("postgres", autocommit=True) as connection:
            connection.execute(f"create database {names[-1]} template {template}".encode())
        return postgres.url(names[-1])

    yield make
    with postgres.connect("postgres", autocommit=True) as connection:
        for name in names:  # many databases make the server's end slow
            connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def database(new_url: Callable[..., str], template: str) -> Iterator[Database]:
    """A migrated database of the test's own."""
    from timestep.store.connection import open_database

    database = open_database(new_url(template), application="test")
    yield database
    database.close()


@pytest.fixture
def empty_database(new_url: Callable[..., str]) -> Iterator[Database]:
    """A database of the test's own that was never migrated."""
    from timestep.store.connection import open_database

    database = open_database(new_url(), application="test")
    yield database
    database.close()


@pytest.fixture
def process_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The test's database as that of this process."""
    from timestep.settings import reset_settings
    from timestep.store.process_database import current_database, reset_current_database

    monkeypatch.setenv("PG_CONNECTION_URI", database.url)
    reset_settings()
    yield current_database()
    reset_current_database()
    reset_settings()


@pytest.fixture
def checkout() -> Path:
    """The folder of the repository."""
    return Path(__file__).parents[1]
