"""The rows that a run leaves: stored once however often the transaction is repeated."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from stored_runs import close_run

from timestep.store.agents import AgentDefinition, insert_definitions
from timestep.store.approvals import Approval, expired_approvals, list_approvals, open_approvals
from timestep.store.connection import Database
from timestep.store.executors import ExecutorRow, insert_executor, list_executors
from timestep.store.tables import agents, approvals
from timestep.store.tool_calls import ToolCallRow, get_call
from timestep.store.usage import ModelCallUsage, list_usage

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)

CALL = ToolCallRow(
    run_id="r",
    call_key="1:call_1",
    segment=1,
    agent="desk",
    tool="refund",
    call_id="call_1",
    arguments='{"order": 7}',
    result={"refunded": True},
    started_at=NOON,
    finished_at=NOON + timedelta(seconds=1),
)
USAGE = ModelCallUsage(
    run_id="r",
    step="model_turn:1:desk",
    segment=1,
    agent="desk",
    model="gpt",
    provider=None,
    requests=2,
    input_tokens=2**40,
    cached_tokens=1,
    output_tokens=3,
    reasoning_tokens=0,
    created_at=NOON,
)
APPROVAL = Approval(
    id="a1",
    run_id="r",
    segment=1,
    session_id=None,
    agent="desk",
    tool="refund",
    call_id="call_1",
    arguments="{}",
    arguments_digest="d",
    expires_at=NOON,
)
EXECUTOR = ExecutorRow(
    id="e1", application_version="v1", host="h", pid=7, process_space="boot", agents=["desk", "clerk"]
)


def test_a_tool_call_stored_twice_keeps_what_was_stored_first(database: Database) -> None:
    failed = replace(CALL, call_key="1:call_2", result=None, error={"type": "ValueError"}, attempt=3)
    close_run(database, "r", tool_calls=[failed, CALL])
    close_run(database, "r", segment=2, tool_calls=[replace(CALL, result="other")])

    assert database.run_sync(get_call, "r", "1:call_1") == CALL
    assert database.run_sync(get_call, "r", "1:call_2") == failed


def test_arguments_that_text_cannot_hold_are_stored_as_escapes(database: Database) -> None:
    tricky = '{"a": "\x00\ud800"}'
    asked, called = replace(APPROVAL, arguments=tricky), replace(CALL, arguments=tricky)
    close_run(database, "r", approvals=[asked], tool_calls=[called])

    assert database.run_sync(get_call, "r", "1:call_1").arguments == '{"a": "\\u0000\\ud800"}'
    assert database.run_sync(open_approvals, "r")[0].arguments == '{"a": "\\u0000\\ud800"}'


def test_usage_stored_twice_keeps_what_was_stored_first(database: Database) -> None:
    priced = replace(USAGE, step="model_turn:2:desk", cost_micro_usd=2**40, created_at=NOON + timedelta(seconds=1))
    close_run(database, "r", model_calls=[priced, USAGE])
    close_run(database, "r", segment=2, model_calls=[replace(USAGE, input_tokens=0)])

    assert database.run_sync(list_usage, "r") == [USAGE, priced]


def test_open_approvals_are_those_that_nobody_decided(database: Database) -> None:
    close_run(database, "r", approvals=[APPROVAL, replace(APPROVAL, id="a2", call_id="call_2")])
    database.run_sync(decide, "a2")

    (still_open,) = database.run_sync(open_approvals, "r")
    assert still_open == replace(APPROVAL, asked_at=still_open.asked_at)
    assert still_open.asked_at is not None
    assert still_open.asked_at.tzinfo is UTC
    assert database.run_sync(open_approvals, "nobody") == []


def test_nobody_waits_for_what_an_older_segment_asked(database: Database) -> None:
    close_run(database, "r", approvals=[APPROVAL])
    close_run(database, "r", segment=2, approvals=[replace(APPROVAL, id="a2", segment=2)])

    assert [each.id for each in database.run_sync(open_approvals, "r")] == ["a2"]
    assert [each.id for each in database.run_sync(list_approvals)] == ["a2"]
    assert {each.id for each in database.run_sync(list_approvals, is_waiting=False)} == {"a1", "a2"}
    assert database.run_sync(expired_approvals) == ["a2"]


def test_pages_of_approvals_have_each_once_in_the_order_of_the_questions(database: Database) -> None:
    close_run(database, "r", approvals=[replace(APPROVAL, id=f"a{9 - place}", place=place) for place in range(5)])

    seen: list[int] = []
    after = None
    while page := database.run_sync(list_approvals, after=after, limit=2):
        seen += [each.place for each in page]
        assert page[-1].asked_at is not None
        after = (page[-1].asked_at, page[-1].place, page[-1].id)
        assert len(seen) <= 6

    assert seen == [0, 1, 2, 3, 4]


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


def test_an_executor_that_registers_again_is_brought_up_to_date(database: Database) -> None:
    database.run_sync(insert_executor, EXECUTOR)
    ((first, is_alive),) = database.run_sync(list_executors)
    database.run_sync(insert_executor, replace(EXECUTOR, agents=["desk"]))
    database.run_sync(insert_executor, replace(EXECUTOR, id="e2"))

    assert (first, is_alive) == (replace(EXECUTOR, started_at=first.started_at), False)
    rows = [row for row, _ in database.run_sync(list_executors)]
    assert [(row.id, list(row.agents)) for row in rows] == [("e1", ["desk"]), ("e2", ["desk", "clerk"])]


@pytest.mark.parametrize("column", ["result", "error"])
def test_nothing_is_stored_as_sql_null_not_as_json_null(database: Database, column: str) -> None:
    close_run(database, "r", tool_calls=[replace(CALL, result=None)])
    count = database.run_sync(
        lambda connection: connection.execute(
            sa.text(f"select count(*) from timestep.tool_calls where {column} is null")
        ).scalar_one()
    )

    assert count == 1


def test_times_are_read_as_utc_whatever_the_server_says(database: Database) -> None:
    close_run(database, "r", tool_calls=[CALL])

    def read_in_berlin(connection: sa.Connection) -> ToolCallRow:
        connection.exec_driver_sql("set local time zone 'Europe/Berlin'")
        return get_call(connection, "r", "1:call_1")

    call = database.run_sync(read_in_berlin)
    assert call.started_at is not None
    assert call.started_at == NOON
    assert call.started_at.tzinfo is UTC


def decide(connection: sa.Connection, approval_id: str) -> None:
    connection.execute(sa.update(approvals).where(approvals.c.id == approval_id).values(status="approved"))
