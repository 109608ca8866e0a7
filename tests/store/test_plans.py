"""What Postgres reads for the queries that executors repeat and people wait for: nothing that grows with history."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from timestep.embedded_postgres import EmbeddedPostgres
from timestep.records import QueuedRun, RunRequest
from timestep.store.approvals import list_approvals
from timestep.store.connection import Database, open_database
from timestep.store.due import find_due
from timestep.store.queues import insert_queued
from timestep.store.run_states import check_unclaimed, claim_for_run, note_resumed
from timestep.store.runs import list_runs, unfinished_segments

HISTORY = (
    "insert into timestep.runs "
    "(id, agent, status, reason, closed_segment, input, input_digest, options, created_at, finished_at) "
    "select 'run-' || n, 'agent-' || n % 10, (array['succeeded', 'failed', 'cancelled', 'interrupted'])[1 + n % 4], "
    "'approval', 1, '1', 'd', '{}', now() - n * interval '1 minute', now() - n * interval '1 minute' "
    "from generate_series(100, 100100) n",
    "insert into timestep.approvals (id, run_id, segment, agent, tool, call_id, arguments, arguments_digest, status) "
    "select 'approval-' || n, 'run-' || n, 1, 'a', 't', 'c', '{}', 'd', "
    "case when n % 20 = 3 then 'open' else 'approved' end from generate_series(1, 100000) n",
    "insert into timestep.run_states (kind, agent, sdk, sdk_version, schema_version, state, resumed_by) "
    "values ('saved', 'a', 'python', '1', '1', '{}', 'run-101')",
    "analyze timestep.runs, timestep.approvals, timestep.run_states",
)
WHOLE = re.compile(r"Seq Scan on (runs|approvals)|runs_by_created|_by_status|runs_pkey on runs .*\n.*Cond: \(id > ")
"""Plans that read a table, or all rows of a status, from end to end."""


@pytest.fixture(scope="module")
def history(server: EmbeddedPostgres, template: str) -> Iterator[Database]:
    """A database of 100,000 runs that have ended or wait for a person."""
    with server.connect("postgres", autocommit=True) as connection:
        connection.execute(f"create database test_plans template {template}".encode())
    database = open_database(server.url("test_plans"), application="test")
    with database.engine.begin() as connection:
        for statement in HISTORY:
            connection.execute(sa.text(statement))
    yield database
    database.close()
    with server.connect("postgres", autocommit=True) as connection:
        connection.execute(b"drop database test_plans with (force)")


def insert_claiming_run(connection: sa.Connection) -> None:
    request = RunRequest(run_id="new", agent="a", input_items="hi")
    insert_queued(connection, [QueuedRun(request=request, input_digest="d", application="test", queue="test")])
    claim_for_run(connection, 1, run_id="new")


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(lambda c: find_due(c, ["agent-1", "agent-2"]), id="the look of each second"),
        pytest.param(lambda c: unfinished_segments(c, older_than_seconds=10), id="unfinished segments"),
        pytest.param(lambda c: check_unclaimed(c, 1, by=None), id="check of a claim"),
        pytest.param(lambda c: note_resumed(c, 1, by=None), id="claim"),
        pytest.param(insert_claiming_run, id="claim of a run"),
        pytest.param(list_approvals, id="approvals that wait"),
        pytest.param(lambda c: list_runs(c, agent="agent-3", limit=50), id="runs of an agent"),
        pytest.param(lambda c: list_runs(c, agent="nobody", limit=50), id="runs of an unknown agent"),
    ],
)
def test_a_long_history_is_not_read(history: Database, query: Callable[[sa.Connection], Any]) -> None:
    with history.engine.connect() as connection, history.engine.connect() as other:
        plans = plans_of(connection, other, query)
        connection.rollback()

    read = [plan for plan in plans if WHOLE.search(plan)]
    assert plans
    assert read == []


def plans_of(connection: sa.Connection, other: sa.Connection, query: Callable[[sa.Connection], Any]) -> list[str]:
    """Return the plans of what `query` executes, explained on another connection."""
    plans: list[str] = []

    def explain(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.lstrip().startswith(("select", "SELECT", "update")):
            plans.append("\n".join(row[0] for row in other.exec_driver_sql(f"explain {statement}", parameters)))

    event.listen(connection, "before_cursor_execute", explain)
    query(connection)
    return plans
