"""One database a test, empty or migrated, on the server that all tests share."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import timestep
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.settings import reset_settings
from timestep.store.connection import Database, open_database
from timestep.store.process_database import current_database, reset_current_database

REPOSITORY = Path(timestep.__path__[0]).parent

_numbers = itertools.count(1)


@pytest.fixture
def own_server(server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A server that the test may stop, not started yet; it shares the programs of the tests' server."""
    own = EmbeddedPostgres(server.directory.parent / f"own_{next(_numbers)}")
    yield own
    end(own)


@pytest.fixture(scope="session")
def template(server: EmbeddedPostgres) -> str:
    """The name of a migrated database to copy."""
    return "template_migrated"


@pytest.fixture
def new_url(server: EmbeddedPostgres) -> Iterator[Callable[..., str]]:
    """Make a database, empty or copied from a template, and return its url; it goes with the test."""
    names: list[str] = []

    def make(template: str = "template0") -> str:
        name = f"test_{next(_numbers)}"
        with server.connect("postgres", autocommit=True) as connection:
            connection.execute(f"create database {name} template {template}".encode())
        names.append(name)
        return server.url(name)

    yield make
    with server.connect("postgres", autocommit=True) as connection:
        for name in names:  # many databases make the server's end slow
            connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def database(new_url: Callable[..., str], template: str) -> Iterator[Database]:
    """A migrated database of the test's own."""
    database = open_database(new_url(template), application="test")
    yield database
    database.close()


@pytest.fixture
def empty_database(new_url: Callable[..., str]) -> Iterator[Database]:
    """A database of the test's own that was never migrated."""
    database = open_database(new_url(), application="test")
    yield database
    database.close()


@pytest.fixture
def process_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The test's database as that of this process."""
    monkeypatch.setenv("PG_CONNECTION_URI", database.url)
    reset_settings()
    yield current_database()
    reset_current_database()
    reset_settings()


@pytest.fixture
def checkout() -> Path:
    return REPOSITORY


def end(server: EmbeddedPostgres) -> None:
    server.stop()
    server.release()
    shutil.rmtree(server.directory, ignore_errors=True)
