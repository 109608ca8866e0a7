"""Definitions of agents: stored once by their hash."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa
from stored_runs import start_run

from timestep.store.agents import AgentDefinition, definitions_named, insert_definitions
from timestep.store.connection import Database
from timestep.store.tables import agents, runs

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


def test_a_start_that_waits_for_its_run_holds_up_no_other_run_of_the_agent(
    database: Database, until: Callable[[Callable[[], object], str], object]
) -> None:
    """The definition is committed by itself: who starts the same agent meanwhile does not wait for this transaction."""
    definition = AgentDefinition(hash="h1", name="desk", definition={"model": "gpt"})
    start_run(database, "held")
    starting = threading.Thread(target=start_run, args=[database, "held"], kwargs={"definition": definition})
    with database.engine.begin() as holder:
        holder.execute(sa.select(runs).where(runs.c.id == "held").with_for_update())
        starting.start()
        until(lambda: database.run_sync(definitions_named, "desk"), "the definition is committed")
        assert starting.is_alive()
    starting.join()
