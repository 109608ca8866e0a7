"""A real model in a process of its own, a proxy before it, and the command line on an embedded server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting_proxy import CountingProxy
from stories import APPLICATION, Stories

import timestep
from timestep.cli.demo.local_model import local_model, missing_packages
from timestep.embedded_postgres import EmbeddedPostgres

HERE = Path(__file__).parent
REPOSITORY = Path(timestep.__path__[0]).parent

_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_")


@pytest.fixture(scope="session")
def model_url() -> Iterator[str]:
    """The address of the real model."""
    if missing := missing_packages():
        pytest.skip(
            f"{missing[0]} is not installed: there is a real model on Linux x86_64 after `make test` made .venv"
        )
    with local_model() as url:
        yield url


@pytest.fixture
def proxy(model_url: str) -> Iterator[CountingProxy]:
    """What stands between the agents and the model."""
    proxy = CountingProxy(model_url)
    yield proxy
    proxy.close()


@pytest.fixture(scope="session")
def data_directory() -> Iterator[Path]:
    """The data directory of these tests."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and shutil.disk_usage(memory).free > 1_000_000_000 else Path("/tmp").resolve()
    folder = Path(tempfile.mkdtemp(prefix="timestep-stories-", dir=place))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(data_directory: Path) -> Iterator[EmbeddedPostgres]:
    """The embedded server that the command line finds; it stays while its other users are killed."""
    server = EmbeddedPostgres(data_directory / "postgres" / "18")
    server.ensure()
    server.ensure_database(APPLICATION)
    yield server
    server.release()
    server.stop()


@pytest.fixture
def stories(server: EmbeddedPostgres, data_directory: Path, proxy: CountingProxy, tmp_path: Path) -> Iterator[Stories]:
    """The command line of the stories' agents."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environment = kept | {
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(HERE))),
        "TIMESTEP_DATA_DIR": str(data_directory),
        "TIMESTEP_APP_NAME": APPLICATION,
        "TIMESTEP_PROBE_LOCAL": "0",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "STORY_MODEL_URL": proxy.url,
    }
    stories = Stories(server, environment, tmp_path)
    yield stories
    stories.end()
