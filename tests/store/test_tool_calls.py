"""Rows of tool calls: stored once, whatever their arguments hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from stored_runs import close_run

from timestep.store.approvals import Approval, open_approvals
from timestep.store.connection import Database
from timestep.store.tool_calls import ToolCallRow, get_call

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)

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
