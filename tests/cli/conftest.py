"""The command line with settings of the test's own, and a shop with agents with a database of its own."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import Ended, Play, Shop, Timestep, clean_environment, run_here

from timestep import cli
from timestep.embedded_postgres import EmbeddedPostgres


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


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run the command line with a command `play` whose body is given."""

    def make(body: Callable[[], Any]) -> Callable[..., int]:
        module = types.ModuleType("played")
        module.command = click.command(name="play")(click.option("--size", type=int)(lambda size: body()))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "played", module)
        monkeypatch.setitem(cli.COMMANDS, "play", ("played", "Play."))
        return lambda *words: cli.run_command_line(words or ("play",))

    return make


@pytest.fixture(scope="module")
def stored(shop_of_module: Shop) -> Iterator[Shop]:
    """The shop with runs of every kind."""
    for words in (
        ("order 43", "--agent", "shop:support", "--id", "order-43", "--session", "ann"),
        ("order 5", "--agent", "shop:desk", "--id", "nested"),
        ("money back", "--agent", "shop:clerk", "--id", "waiting"),
        ("hello", "--agent", "shop:broken", "--id", "failing"),
        ("order 6", "--agent", "support", "--id", "order-6", "--detach"),
    ):
        shop_of_module.call("run", *words)
    yield shop_of_module
    (shop_of_module.folder / "bodies.txt").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def executor(shop_of_module: Shop) -> Iterator[None]:
    """An executor with the agents of the shop."""
    process = shop_of_module.start("worker", "shop")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    yield
    process.terminate()
    process.communicate(timeout=60)
