"""Rows of executors."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from timestep.store.connection import Database
from timestep.store.executors import ExecutorRow, insert_executor, list_executors

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
EXECUTOR = ExecutorRow(
    id="e1", application_version="v1", host="h", pid=7, process_space="boot", agents=["desk", "clerk"]
)


def test_an_executor_that_registers_again_is_brought_up_to_date(database: Database) -> None:
    database.run_sync(insert_executor, EXECUTOR)
    ((first, is_alive),) = database.run_sync(list_executors)
    database.run_sync(insert_executor, replace(EXECUTOR, agents=["desk"]))
    database.run_sync(insert_executor, replace(EXECUTOR, id="e2"))

    assert (first, is_alive) == (replace(EXECUTOR, started_at=first.started_at), False)
    rows = [row for row, _ in database.run_sync(list_executors)]
    assert [(row.id, list(row.agents)) for row in rows] == [("e1", ["desk"]), ("e2", ["desk", "clerk"])]
