"""The command line with settings of the test's own, and a shop with agents with a database of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Ended, Shop, clean_environment, run_here

from timestep.embedded_postgres import EmbeddedPostgres

Timestep = Callable[..., Ended]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the commands: nothing configured, nothing probed, an own data directory."""
    return clean_environment(TIMESTEP_DATA_DIR=str(tmp_path / "data"), TIMESTEP_APP_NAME="test-shop")


@pytest.fixture
def timestep_command(tmp_path: Path, environment: dict[str, str]) -> Timestep:
    """Run `timestep WORDS...` in the test's folder, without a terminal."""

    def call(*words: str, variables: dict[str, str] | None = None) -> Ended:
        return run_here(*words, folder=tmp_path, environment=environment | (variables or {}))

    return call


@pytest.fixture(scope="module")
def shop_of_module(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres, new_database: Callable[[], str]
) -> Shop:
    """A shop of this module's own: a folder, and an application with a database."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copy(Path(__file__).parent / "shop.py", folder)
    data_directory = postgres.directory.parents[1]
    environment = clean_environment(TIMESTEP_DATA_DIR=str(data_directory), TIMESTEP_APP_NAME=new_database())
    return Shop(folder, environment, postgres)


@pytest.fixture
def shop(shop_of_module: Shop) -> Iterator[Shop]:
    """The shop, with no line of an earlier test."""
    yield shop_of_module
    for name in ("bodies.txt", "release"):
        (shop_of_module.folder / name).unlink(missing_ok=True)
