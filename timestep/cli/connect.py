"""How commands reach the runs: over a connector to the database of the settings, launching nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from timestep.cli.quiet import quieten
from timestep.client.connector import Connector, open_connector


@contextlib.contextmanager
def connect() -> Generator[Connector]:
    """Open the configured database, or the embedded one, with both schemas in place.

    Raises:
        DatabaseNotReadyError: it does not answer, or a schema is missing and may not be made.
    """
    quieten()
    with open_connector() as connector:
        yield connector
