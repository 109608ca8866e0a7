"""A server that a test may stop."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator

import pytest

from timestep.embedded_postgres import EmbeddedPostgres

_numbers = itertools.count(1)


@pytest.fixture
def own_server(postgres: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """A server that the test may stop, not started yet; it shares the programs of the tests' server."""
    own = EmbeddedPostgres(postgres.directory.parent / f"own_{next(_numbers)}")
    yield own
    own.stop()
    own.release()
    shutil.rmtree(own.directory, ignore_errors=True)
