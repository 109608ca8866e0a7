"""The command line in a process of its own, with settings of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import timestep
from timestep.embedded_postgres import EmbeddedPostgres

REPOSITORY = Path(timestep.__path__[0]).parent

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


@dataclass
class Shop:
    """A folder with the agents of `shop.py`, and a database that the commands of a test module share."""

    folder: Path
    environment: dict[str, str]
    server: EmbeddedPostgres

    def call(
        self, *words: str, stdin: str | None = None, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `timestep WORDS...` to its end."""
        return subprocess.run(
            _words(words),
            cwd=self.folder,
            env=self.environment | (variables or {}),
            capture_output=True,
            text=True,
            check=False,
            input=stdin or "",
            timeout=120,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `timestep WORDS...` and leave it running; both of its outputs are pipes."""
        return subprocess.Popen(
            _words(words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bodies(self) -> list[str]:
        """Return the lines that the bodies of models and tools have left since the test began."""
        path = self.folder / "bodies.txt"
        return path.read_text().splitlines() if path.exists() else []

    def release(self) -> None:
        """Let the tool `look_up` return from order 99."""
        (self.folder / "release").touch()


def _words(words: tuple[str, ...]) -> list[str]:
    # As the installed script: the current folder is not on the Python path by itself.
    return [sys.executable, "-P", "-m", "timestep", *words]


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
