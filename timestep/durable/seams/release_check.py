"""Check that a release has the private names that a seam uses, as the seam knows them.

A seam checks them when it is imported. Without a necessary one Timestep does not start; without an optional one, which
only makes things faster, it goes the package's own way.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

log = logging.getLogger("timestep")

_missed: set[str] = set()
"""What was logged: each once a process."""


@dataclass(frozen=True)
class Release:
    """The releases of a package that the seams are written for, as a requirement such as `dbos>=3.4,<3.5`."""

    requirement: str

    def check(self, function: Callable[..., Any], parameters: list[str], *, are_all: bool = True) -> None:
        """Refuse a release in which a function takes other parameters, or without `are_all` lacks one of these.

        Raises:
            ImportError: it does; the message names both lists and the release to install.
        """
        found = list(inspect.signature(function).parameters)
        if found != parameters and (are_all or not set(parameters) <= set(found)):
            raise self._unfit(f"{function.__module__}.{function.__qualname__} takes {found}, expected {parameters}")

    def check_attributes(self, thing: object, names: Collection[str]) -> None:
        """Refuse a release in which a class with fields, or an instance, lacks one of these.

        Raises:
            ImportError: it does.
        """
        if missing := sorted(set(names) - set(getattr(thing, "__dataclass_fields__", ())) - set(dir(thing))):
            kind = thing if isinstance(thing, type) else type(thing)
            raise self._unfit(f"{kind.__module__}.{kind.__qualname__} has no {', '.join(missing)}")

    def check_columns(self, table: sa.Table, columns: Collection[str], *, are_all: bool = False) -> None:
        """Refuse a release in which a table lacks one of these columns, or with `are_all` has others too.

        Raises:
            ImportError: it does.
        """
        found = {column.name for column in table.c}
        if not found.issuperset(columns) or (are_all and found != set(columns)):
            raise self._unfit(f"The table {table.name} has the columns {sorted(found)}, expected {sorted(columns)}")

    @contextlib.contextmanager
    def optional(self, what: str) -> Generator[None]:
        """Do without what the code inside puts in place, when the release lacks a name that it needs; log that once."""
        try:
            yield
        except (ImportError, AttributeError) as error:
            if what not in _missed:
                _missed.add(what)
                log.warning("%s: without a short way, since it needs %s. %s", what, self.requirement, error)

    def _unfit(self, problem: str) -> ImportError:
        return ImportError(f"{problem}: this version of timestep works with {self.requirement}; install that")


DBOS_RELEASE = Release("dbos>=3.4,<3.5")
AGENTS_RELEASE = Release("openai-agents>=0.24,<0.25")
