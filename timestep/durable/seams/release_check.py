"""Check at import that a release has the private names that a seam uses, as the seam knows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True)
class Release:
    """The releases of a package that the seams are written for, as a requirement such as `dbos>=3.4,<3.5`."""

    requirement: str

    def check(self, function: Callable[..., Any], parameters: list[str]) -> None:
        """Refuse a release in which a function takes other parameters.

        Raises:
            ImportError: it does; the message names both lists and the release to install.
        """
        found = list(inspect.signature(function).parameters)
        if found != parameters:
            self._refuse(f"{function.__module__}.{function.__qualname__} takes {found}, expected {parameters}")

    def check_columns(self, what: str, table: sa.Table, columns: Collection[str]) -> None:
        """Refuse a release in which a table has other columns.

        Raises:
            ImportError: it has.
        """
        found = {column.name for column in table.c}
        if found != set(columns):
            self._refuse(f"{what} has the columns {sorted(found)}, expected {sorted(columns)}")

    def _refuse(self, problem: str) -> None:
        raise ImportError(f"{problem}: this version of timestep works with {self.requirement}; install that")


DBOS_RELEASE = Release("dbos>=3.4,<3.5")
AGENTS_RELEASE = Release("openai-agents>=0.24,<0.25")
