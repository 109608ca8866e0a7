"""The command line in a process of its own, with settings of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import REPOSITORY, Shop

from timestep.embedded_postgres import EmbeddedPostgres

Timestep = Callable[..., subprocess.CompletedProcess[str]]

_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_", "NO_COLOR")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the commands: nothing configured, nothing probed, an own data directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {
        "PYTHONPATH": str(REPOSITORY),
        "TIMESTEP_PROBE_LOCAL": "0",
        "TIMESTEP_DATA_DIR": str(tmp_path / "data"),
        "TIMESTEP_APP_NAME": "test-shop",
    }


@pytest.fixture
def timestep_command(tmp_path: Path, environment: dict[str, str]) -> Timestep:
    """Run `timestep WORDS...` in the test's folder, without a terminal."""

    def call(*words: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "timestep", *words],
            cwd=tmp_path,
            env=environment | (variables or {}),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    return call


@pytest.fixture(scope="module")
def shop_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    shutil.copy(Path(__file__).parent / "shop.py", folder)
    server = EmbeddedPostgres(folder / "data" / "postgres" / "18")
    server.ensure()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environment = kept | {
        "PYTHONPATH": str(REPOSITORY),
        "TIMESTEP_PROBE_LOCAL": "0",
        "TIMESTEP_DATA_DIR": str(folder / "data"),
        "TIMESTEP_APP_NAME": "shop",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }
    yield Shop(folder, environment, server)
    server.release()
    server.stop()


@pytest.fixture
def shop(shop_of_module: Shop) -> Iterator[Shop]:
    """The shop, with no line of an earlier test."""
    yield shop_of_module
    for name in ("bodies.txt", "release"):
        (shop_of_module.folder / name).unlink(missing_ok=True)
