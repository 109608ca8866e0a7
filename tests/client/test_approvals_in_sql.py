"""Decide what runs wait for with plain SQL."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from decision_desk import FREE_QUESTION, LIMIT, QUESTION, UNKNOWN, Desk

from timestep.client.decide import approve, get_approval, list_approvals
from timestep.errors import (
    ApprovalNotWaitingError,
)

DECIDE = "select timestep.decide(:id, :decision, :by, answer => cast(:answer as json))"


def decide(
    desk: Desk, approval_id: str, decision: str, *, by: str | None = "sql", answer: Any = None
) -> dict[str, Any]:
    """Decide as a program in another language does."""
    text = None if answer is None else json.dumps(answer)
    return desk.sql(DECIDE, id=approval_id, decision=decision, by=by, answer=text)[0][0]


def test_plain_sql_asks_and_decides(desk: Desk) -> None:
    run_id = desk.waiting()
    desk.sql(
        "insert into timestep.approvals (id, run_id, segment, agent, tool, call_id, arguments, arguments_digest) "
        "values (:id, :run, 1, 'clerk', 'refund', 'c', '{}', encode(sha256('{}'), 'hex'))",
        id=f"{run_id}-0", run=run_id,
    )  # fmt: skip
    [row] = asyncio.run(list_approvals(run_id, database=desk.database))
    assert (row.status, row.kind, row.place, row.is_sticky) == ("open", "approval", 0, False)
    assert row.asked_at is not None
    said = decide(desk, row.id, "approved", by="ann")
    assert (said["outcome"], said["status"], said["decided_by"]) == ("decided", "approved", "ann")
    assert said["next_segment"] == f"{run_id}~2"
    assert decide(desk, row.id, "rejected", by="bob") | {"next_segment": said["next_segment"]} == said | {
        "outcome": "already_decided", "run_status": "queued",
    }  # fmt: skip


def test_plain_sql_is_told_why_a_decision_was_not_taken(desk: Desk) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    run_id = desk.waiting({}, QUESTION, {"expires_at": past, "on_expiry": "reject"}, {"expires_at": past})
    assert decide(desk, "nothing", "approved") == {"outcome": "unknown", "approval_id": "nothing"}
    assert decide(desk, f"{run_id}-0", "answered", answer="S")["outcome"] == "not_allowed"
    assert decide(desk, f"{run_id}-0", "expired")["outcome"] == "not_allowed"
    assert decide(desk, f"{run_id}-0", "perhaps")["outcome"] == "not_allowed"
    assert decide(desk, f"{run_id}-1", "approved")["outcome"] == "not_allowed"
    wrong = decide(desk, f"{run_id}-1", "answered", answer="XL")
    assert (wrong["outcome"], wrong["choices"]) == ("not_a_choice", ["S", "M"])
    [[changed]] = desk.sql("select timestep.decide(:id, 'approved', 'sql', 'other digest')", id=f"{run_id}-0")
    assert changed["outcome"] == "changed"
    assert decide(desk, f"{run_id}-2", "approved")["outcome"] == "expired"
    assert decide(desk, f"{run_id}-3", "expired", by="")["outcome"] == "expired"
    desk.change(run_id, status="cancelled")
    assert decide(desk, f"{run_id}-0", "approved")["outcome"] == "not_waiting"


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        (FREE_QUESTION, None), (FREE_QUESTION, 7), (FREE_QUESTION, {"a": 1}),
        (UNKNOWN, None), (UNKNOWN, "happened"), (UNKNOWN, {"outcome": "fail"}), (UNKNOWN, {"result": 7}),
        (LIMIT, None), (LIMIT, 7), (LIMIT, {"max_turns": 9}), (LIMIT, {"limits": {"max_turn": 9}}),
        (LIMIT, {"limits": {"max_turns": "9"}}), (LIMIT, {"limits": {"max_turns": 0}}), (LIMIT, {"limits": {}}),
        (LIMIT, {"limits": {"max_turns": 9.5}}),
    ],
)  # fmt: skip
def test_plain_sql_cannot_answer_what_no_segment_could_read(desk: Desk, fields: dict[str, Any], answer: Any) -> None:
    run_id = desk.waiting(fields)
    assert decide(desk, f"{run_id}-0", "answered", answer=answer)["outcome"] == "not_allowed"
    assert desk.run(run_id).status == "interrupted"


def test_plain_sql_must_say_who_decides(desk: Desk) -> None:
    run_id = desk.waiting({})
    for nobody in (None, "", " "):
        assert decide(desk, f"{run_id}-0", "approved", by=nobody)["outcome"] == "not_allowed"
    assert desk.run(run_id).status == "interrupted"


def test_with_enqueue_false_the_caller_starts_the_next_segment_itself(desk: Desk) -> None:
    run_id = desk.waiting({})
    [[said]] = desk.sql("select timestep.decide(:id, 'approved', 'sql', enqueue => false)", id=f"{run_id}-0")
    assert (said["outcome"], said["next_segment"]) == ("decided", f"{run_id}~2")
    assert (desk.run(run_id).status, desk.workflows(run_id)) == ("queued", [])


def test_a_question_of_an_older_segment_takes_no_decision(desk: Desk) -> None:
    run_id = desk.waiting({})
    desk.change(run_id, segment=2)
    with pytest.raises(ApprovalNotWaitingError):
        asyncio.run(approve(run_id, "call_0", by="ann", database=desk.database))
    assert asyncio.run(get_approval(f"{run_id}-0", database=desk.database)).status == "open"
