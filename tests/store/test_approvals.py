"""Rows of approvals: which are open, and in which order they are listed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa
from stored_runs import close_run

from timestep.store.approvals import Approval, expired_approvals, list_approvals, open_approvals
from timestep.store.connection import Database
from timestep.store.tables import approvals

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


def decide(connection: sa.Connection, approval_id: str) -> None:
    connection.execute(sa.update(approvals).where(approvals.c.id == approval_id).values(status="approved"))
