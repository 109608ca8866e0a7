"""Definitions of agents: stored once by their hash."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa

from timestep.store.agents import AgentDefinition, insert_definitions
from timestep.store.connection import Database
from timestep.store.tables import agents

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def test_a_definition_is_stored_once_by_its_hash(database: Database) -> None:
    definition = AgentDefinition(hash="h1", name="desk", definition={"model": "gpt", "tools": ["refund"]})
    database.run_sync(insert_definitions, [])
    database.run_sync(insert_definitions, [definition])
    database.run_sync(insert_definitions, [replace(definition, name="other"), replace(definition, hash="h0")])

    rows = database.run_sync(lambda connection: connection.execute(sa.select(agents).order_by(agents.c.hash)).all())
    assert [(row.hash, row.name, row.definition) for row in rows] == [
        ("h0", "desk", definition.definition),
        ("h1", "desk", definition.definition),
    ]
