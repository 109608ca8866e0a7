"""What the database has of the words: the function that `timestep.decide` reads, the checks, and reasons of old."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from timestep import words
from timestep.store import migrations
from timestep.store.connection import Database, open_database
from timestep.store.queues import ended_among
from timestep.store.runs import find_progress, get_stored_run, list_runs
from timestep.store.tables import metadata, runs

CHECKS = """
select conname, pg_get_constraintdef(oid) from pg_constraint
where connamespace = 'timestep'::regnamespace and contype = 'c'"""

INSERT = """
insert into timestep.runs (id, agent, status, reason, input, input_digest, options, error)
values (:id, 'a', :status, :reason, '"hi"', 'd', '{}', :error)"""

OLD = [
    ("limit_reached_error", "LimitReachedError", "limit_reached"),
    ("outcome_unknown_error", "OutcomeUnknownError", "outcome_unknown"),
    ("approval_expired_error", "ApprovalExpiredError", "approval_expired"),
    ("agent_not_registered_error", "AgentNotRegisteredError", "agent_not_registered"),
    ("history_changed_error", "HistoryChangedError", "history_changed"),
    ("m_c_p_tool_cancellation_error", "MCPToolCancellationError", "mcp_tool_cancellation_error"),
    ("value_error", "ValueError", "exception"),
    ("run_not_found_error", "RunNotFoundError", "exception"),
    ("max_turns_exceeded", "MaxTurnsExceeded", "max_turns_exceeded"),
    ("snapshot_mismatch_error", "SnapshotMismatchError", "snapshot_mismatch_error"),
    ("engine_error", "RunFailedError", "engine_error"),
]
"""Reasons that an executor of 0.1.0 wrote, the class of the error beside them, and the reason of today."""


def test_the_words_of_decide_are_those_of_the_code(database: Database) -> None:
    installed = database.run_sync(lambda connection: connection.execute(sa.text("select timestep.words()")).scalar())
    assert installed == words.words_in_sql()


def test_the_checks_are_those_of_the_tables(database: Database) -> None:
    found = database.run_sync(lambda connection: connection.execute(sa.text(CHECKS)).all())
    declared = {
        str(check.name): words_of(str(check.sqltext))
        for table in metadata.tables.values()
        for check in table.constraints
        if isinstance(check, sa.CheckConstraint)
    }
    assert {name: words_of(text) for name, text in found} == declared
    assert declared["runs_status"] == list(words.RUN_STATUSES)
    assert declared["approvals_status"] == list(words.APPROVAL_STATUSES)
    assert declared["approvals_kind"] == [each.word for each in words.KINDS_OF_APPROVAL]


@pytest.mark.parametrize(
    "change",
    [
        "update timestep.runs set status = 'paused'",
        "update timestep.approvals set status = 'maybe'",
        "update timestep.approvals set kind = 'wish'",
    ],
)
def test_impossible_words_are_refused(database: Database, change: str) -> None:
    store_run(database, "r", status="interrupted", reason="approval")
    asked = sa.text(
        "insert into timestep.approvals (id, run_id, segment, agent, tool, call_id, arguments, arguments_digest) "
        "values ('a', 'r', 1, 'a', 't', 'c', '', 'd')"
    )
    database.run_sync(lambda connection: connection.execute(asked))
    with pytest.raises(IntegrityError, match="check constraint"):
        database.run_sync(lambda connection: connection.execute(sa.text(change)))


def test_the_migration_mends_the_reasons_that_are_stored(
    new_url: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(new_url(), application="test")
    with monkeypatch.context() as before:
        before.setattr(migrations, "HEAD_REVISION", "0006")
        migrations.migrate(database)
    for reason, error, _ in OLD:
        store_run(database, reason, status="failed", reason=reason, error={"type": error, "module": "m"})
    store_run(database, "waits", status="interrupted", reason="limit")
    store_run(database, "done", status="succeeded", reason=None)
    migrations.migrate(database)
    rows = database.run_sync(lambda connection: connection.execute(sa.select(runs.c.id, runs.c.reason)).all())
    database.close()
    expected = {reason: today for reason, _, today in OLD}
    assert {row.id: row.reason for row in rows} == expected | {"waits": "limit", "done": None}


def test_what_an_older_executor_still_writes_is_read_as_today(database: Database) -> None:
    for reason, error, _ in OLD:
        store_run(database, reason, status="failed", reason=reason, error={"type": error, "module": "m"})
    expected = {reason: today for reason, _, today in OLD}
    assert {run.run_id: run.reason for run in database.run_sync(list_runs)} == expected
    assert {row["run_id"]: row["reason"] for row in database.run_sync(ended_among, list(expected))} == expected
    for reason, today in expected.items():
        progress = database.run_sync(find_progress, reason)
        assert progress is not None
        assert (progress.reason, database.run_sync(get_stored_run, reason).run.reason) == (today, today)


def test_a_reason_of_a_newer_executor_is_shown_as_it_is(database: Database) -> None:
    store_run(database, "new", status="interrupted", reason="a_word_of_tomorrow")
    store_run(database, "known", status="interrupted", reason="limit")
    found = {run.run_id: run.reason for run in database.run_sync(list_runs)}
    assert found == {"new": "a_word_of_tomorrow", "known": "limit"}


def store_run(database: Database, run_id: str, **fields: Any) -> None:
    """Store a run by SQL that fits every revision of the schema."""
    values = {"id": run_id, "error": None} | fields
    insert = sa.text(INSERT).bindparams(sa.bindparam("error", type_=sa.JSON(none_as_null=True)))
    database.run_sync(lambda connection: connection.execute(insert, values))


def words_of(condition: str) -> list[str]:
    return re.findall(r"'(\w+)'", condition)
