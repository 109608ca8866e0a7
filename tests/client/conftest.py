"""A desk where people decide, on a database where nothing is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from decision_desk import Desk

from timestep.embedded_postgres import EmbeddedPostgres
from timestep.store.connection import open_database


@pytest.fixture(scope="module")
def url(server: EmbeddedPostgres, new_database: Callable[[], str]) -> str:
    """A migrated database of these tests; nothing is launched on it."""
    return server.url(new_database())


@pytest.fixture
def desk(url: str) -> Iterator[Desk]:
    database = open_database(url, application="test")
    desk = Desk(database)
    yield desk
    desk.connector.close()
    database.close()
