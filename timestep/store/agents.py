"""Agent definitions by content hash: `agents`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from timestep.store.tables import agents


@dataclass(frozen=True, kw_only=True)
class AgentDefinition:
    """What an agent is made of, as JSON, and the hash of it."""

    hash: str
    name: str
    definition: Mapping[str, Any]


def definitions_named(connection: sa.Connection, name: str) -> list[Mapping[str, Any]]:
    """Return every definition that an agent of this name has had."""
    return list(connection.execute(sa.select(agents.c.definition).where(agents.c.name == name)).scalars())


def insert_definitions(connection: sa.Connection, definitions: Sequence[AgentDefinition]) -> None:
    """Store the definitions that are not there yet. May be repeated."""
    if definitions:
        # In one order everywhere: two executors that start at once would else wait for each other.
        rows = sorted((vars(definition) for definition in definitions), key=lambda row: row["hash"])
        connection.execute(insert(agents).on_conflict_do_nothing(), rows)
