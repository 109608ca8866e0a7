"""Decide what runs wait for from outside: approve, reject, answer, settle, raise limits, expire."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from decision_desk import FREE_QUESTION, LIMIT, QUESTION, UNKNOWN, Desk

from timestep.client.approvals import expire_approvals
from timestep.client.decide import answer, approve, get_approval, list_approvals, raise_limits, reject, settle
from timestep.client.runs import cancel_run, resume_run
from timestep.errors import (
    AmbiguousCallError,
    ApprovalAlreadyDecided,
    ApprovalChangedError,
    ApprovalExpiredError,
    ApprovalNotFoundError,
    ApprovalNotWaitingError,
    InvalidInputError,
    RunNotFoundError,
)
from timestep.records import Approval, RunLimits


async def test_the_last_decision_queues_the_next_segment_once(desk: Desk) -> None:
    run_id = desk.waiting({}, {})
    first = await approve(run_id, "call_0", by="ann", database=desk.database)
    assert (first.status, first.decided_by, first.is_sticky) == ("approved", "ann", False)
    assert first.decided_at is not None
    assert (desk.run(run_id).status, desk.workflows(run_id)) == ("interrupted", [])
    second = await reject(run_id, by="bob", reason="too much", database=desk.database)
    assert (second.call_id, second.status, second.reason) == ("call_1", "rejected", "too much")
    run = desk.run(run_id)
    assert (run.status, run.reason, run.segment) == ("queued", None, 2)
    assert desk.workflows(run_id) == [(f"{run_id}~2", "agent_run")]
    [workflow] = desk.connector.dbos.list_workflows(workflow_ids=[f"{run_id}~2"])
    assert (workflow.queue_name, workflow.status) == ("timestep_segments", "ENQUEUED")
    assert workflow.input is not None
    assert list(workflow.input["args"]) == [{"agent": "clerk", "run_id": run_id, "segment": 2}]


async def test_of_two_deciders_at_the_same_moment_one_is_first_and_the_other_is_told_who(desk: Desk) -> None:
    run_id = desk.waiting({})
    with desk.database.engine.connect() as holder:  # both come to the row before either may go on
        holder.execute(sa.text("select 1 from timestep.runs where id = :id for update"), {"id": run_id})
        deciding = [
            asyncio.ensure_future(approve(run_id, by="ann", database=desk.database)),
            asyncio.ensure_future(reject(run_id, by="bob", database=desk.database)),
        ]
        waiting = "select count(*) from pg_locks where not granted"
        while desk.sql(waiting)[0][0] < 2:
            await asyncio.sleep(0.02)
        holder.rollback()
    ended = await asyncio.gather(*deciding, return_exceptions=True)
    [refused] = [each for each in ended if isinstance(each, ApprovalAlreadyDecided)]
    [made] = [each for each in ended if isinstance(each, Approval)]
    assert made.decided_by in ("ann", "bob")
    assert (refused.approval_id, refused.status, refused.decided_by) == (made.id, made.status, made.decided_by)
    assert refused.decided_at is not None
    assert made.decided_at == datetime.fromisoformat(refused.decided_at)
    assert f"was {made.status} by {made.decided_by!r}" in str(refused)
    assert await get_approval(made.id, database=desk.database) == made
    assert desk.workflows(run_id) == [(f"{run_id}~2", "agent_run")]


async def test_a_crowd_decides_each_of_many_calls_once(desk: Desk) -> None:
    run_id = desk.waiting(*({} for _ in range(6)))
    ended = await asyncio.gather(
        *(
            verb(run_id, f"call_{place}", by=verb.__name__, database=desk.database)
            for place in range(6)
            for verb in (approve, reject)
        ),
        return_exceptions=True,
    )
    assert len([each for each in ended if isinstance(each, Approval)]) == 6
    assert len([each for each in ended if isinstance(each, (ApprovalAlreadyDecided, ApprovalNotWaitingError))]) == 6
    assert (desk.run(run_id).segment, desk.workflows(run_id)) == (2, [(f"{run_id}~2", "agent_run")])


@pytest.mark.parametrize(("verb", "status"), [(approve, "approved"), (reject, "rejected")])
async def test_always_decides_the_other_open_calls_of_this_tool_by_this_agent(
    desk: Desk, verb: Any, status: str
) -> None:
    run_id = desk.waiting({}, {}, {"tool": "ship"}, {"agent": "deputy"}, FREE_QUESTION | {"tool": "refund"})
    other = desk.waiting({})
    made = await verb(run_id, "call_1", by="ann", always=True, database=desk.database)
    assert made.is_sticky
    assert await desk.statuses(run_id) == [status, status, "open", "open", "open"]
    assert await desk.statuses(other) == ["open"]
    also = await get_approval(f"{run_id}-0", database=desk.database)
    assert (also.decided_by, also.decided_at, also.is_sticky) == ("ann", made.decided_at, True)
    assert desk.run(run_id).status == "interrupted"


async def test_always_does_not_decide_a_call_whose_time_is_over(desk: Desk) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    run_id = desk.waiting({}, {"expires_at": past, "on_expiry": "reject"})
    await approve(run_id, "call_0", by="ann", always=True, database=desk.database)
    assert await desk.statuses(run_id) == ["approved", "open"]
    assert expire_approvals(desk.connector) >= 1
    assert await desk.statuses(run_id) == ["approved", "expired"]


async def test_two_open_calls_with_one_call_id_are_told_apart_by_their_approval_ids(desk: Desk) -> None:
    run_id = desk.waiting({"call_id": "same"}, {"call_id": "same", "arguments": '{"order": 8}'})
    for call_id in ("same", None):
        with pytest.raises(
            AmbiguousCallError, match=f"{run_id}-0 an approval of refund.*; {run_id}-1 an approval"
        ) as refused:
            await approve(run_id, call_id, by="ann", database=desk.database)
        assert "approval_id" in refused.value.hint
    assert await desk.statuses(run_id) == ["open", "open"]
    await reject(run_id, approval_id=f"{run_id}-1", by="ann", database=desk.database)
    await approve(run_id, "same", by="ann", database=desk.database)  # now it is the only open one
    assert await desk.statuses(run_id) == ["approved", "rejected"]
    with pytest.raises(ApprovalAlreadyDecided):
        await approve(run_id, "same", by="bob", database=desk.database)


async def test_what_was_shown_is_what_is_decided(desk: Desk) -> None:
    run_id = desk.waiting({"arguments": '{"amount": 10}'})
    shown = await get_approval(f"{run_id}-0", database=desk.database)
    changed = '{"amount": 1000}'
    desk.sql(
        "update timestep.approvals set arguments = :text, arguments_digest = :digest where id = :id",
        text=changed, digest=hashlib.sha256(changed.encode()).hexdigest(), id=shown.id,
    )  # fmt: skip
    for verb in (approve, reject):
        with pytest.raises(ApprovalChangedError, match="1000"):
            await verb(run_id, by="ann", arguments_digest=shown.arguments_digest, database=desk.database)
    assert (await desk.statuses(run_id), desk.run(run_id).status) == (["open"], "interrupted")
    assert (await approve(run_id, by="ann", database=desk.database)).arguments == changed


async def test_what_nobody_decides_in_time_is_rejected(desk: Desk) -> None:
    past, later = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(hours=1)
    run_id = desk.waiting({"expires_at": past, "on_expiry": "reject"}, {"expires_at": later, "on_expiry": "reject"})
    expire_approvals(desk.connector)
    assert await desk.statuses(run_id) == ["expired", "open"]
    assert desk.run(run_id).status == "interrupted"
    late = await get_approval(f"{run_id}-0", database=desk.database)
    assert (late.decided_by, late.decided_at is None) == (None, False)
    with pytest.raises(ApprovalExpiredError):
        await approve(run_id, "call_0", by="ann", database=desk.database)
    await approve(run_id, "call_1", by="ann", database=desk.database)
    assert (desk.run(run_id).status, len(desk.workflows(run_id))) == ("queued", 1)
    assert expire_approvals(desk.connector) == 0


async def test_a_decision_after_the_time_is_the_expiry(desk: Desk) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    run_id = desk.waiting({"expires_at": past, "on_expiry": "reject"})
    with pytest.raises(ApprovalExpiredError, match="expired at"):
        await approve(run_id, by="ann", database=desk.database)
    assert (await desk.statuses(run_id), desk.run(run_id).status) == (["expired"], "queued")
    assert len(desk.workflows(run_id)) == 1


async def test_an_expiry_that_fails_the_run_is_asked_again_after_a_resume(desk: Desk) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    run_id = desk.waiting({"expires_at": past, "on_expiry": "fail"}, {})
    expire_approvals(desk.connector)
    run = desk.run(run_id)
    assert (run.status, run.reason, desk.workflows(run_id)) == ("failed", "approval_expired", [])
    assert run.error is not None
    assert (run.error["type"], "in time" in run.error["message"]) == ("ApprovalExpiredError", True)
    with pytest.raises(ApprovalNotWaitingError, match="is failed"):
        await approve(run_id, "call_1", by="ann", database=desk.database)
    resume_run(desk.connector, run_id)
    assert await desk.statuses(run_id) == ["open", "open"]
    again = await approve(run_id, "call_0", by="ann", database=desk.database)
    assert (again.status, again.expires_at) == ("approved", None)


async def test_a_cancelled_run_takes_no_decision_until_it_is_resumed(desk: Desk) -> None:
    run_id = desk.waiting({})
    cancel_run(desk.connector, run_id)
    assert await list_approvals(run_id, database=desk.database) == []
    for verb in (approve, reject):
        with pytest.raises(ApprovalNotWaitingError, match="the run is cancelled") as refused:
            await verb(run_id, "call_0", by="ann", database=desk.database)
    assert "timestep runs resume" in refused.value.hint
    assert (await desk.statuses(run_id), desk.workflows(run_id)) == (["open"], [])
    resume_run(desk.connector, run_id)
    assert (desk.run(run_id).status, desk.run(run_id).reason) == ("interrupted", "approval")
    await approve(run_id, by="ann", database=desk.database)
    assert desk.run(run_id).status == "queued"


async def test_a_run_that_waits_again_says_for_what(desk: Desk) -> None:
    for asked, reason in ((QUESTION, "approval"), (UNKNOWN, "outcome_unknown"), (LIMIT, "limit")):
        run_id = desk.waiting(asked, reason=reason)
        cancel_run(desk.connector, run_id)
        resume_run(desk.connector, run_id)
        assert (desk.run(run_id).status, desk.run(run_id).reason) == ("interrupted", reason)


async def test_a_question_takes_one_of_its_choices(desk: Desk) -> None:
    run_id = desk.waiting(QUESTION)
    with pytest.raises(InvalidInputError, match="'XL' is none of the choices") as refused:
        await answer(run_id, "XL", by="ann", database=desk.database)
    assert "'S', 'M'" in refused.value.hint
    made = await answer(run_id, "M", by="ann", database=desk.database)
    assert (made.status, made.answer) == ("answered", "M")
    assert desk.workflows(run_id) == [(f"{run_id}~2", "agent_run")]
    free = desk.waiting(FREE_QUESTION)
    assert (await answer(free, "", by="ann", database=desk.database)).answer == ""
    with pytest.raises(InvalidInputError, match="An answer is text"):
        await answer(desk.waiting(FREE_QUESTION), 7, by="ann", database=desk.database)  # type: ignore[arg-type]


async def test_a_question_that_is_rejected_goes_on_too(desk: Desk) -> None:
    run_id = desk.waiting(QUESTION)
    assert (await reject(run_id, by="ann", reason="No idea.", database=desk.database)).status == "rejected"
    assert desk.run(run_id).status == "queued"


@pytest.mark.parametrize(
    ("outcome", "result", "stored"),
    [
        ("happened", {"receipt": 7}, {"outcome": "happened", "result": {"receipt": 7}}),
        ("happened", None, {"outcome": "happened", "result": None}),
        ("did_not_happen", None, {"outcome": "did_not_happen"}),
    ],
)
async def test_a_settled_call_goes_on_from_a_copy_of_the_journal(
    desk: Desk, outcome: Any, result: Any, stored: Any
) -> None:
    run_id = desk.waiting(UNKNOWN, reason="outcome_unknown")
    made = await settle(run_id, by="ann", outcome=outcome, result=result, database=desk.database)
    assert (made.status, made.answer) == ("answered", stored)
    assert desk.workflows(run_id) == [(f"{run_id}~2~copy", "copy_segment")]


async def test_what_cannot_be_settled_fails_the_run(desk: Desk) -> None:
    for settled in (True, False):
        run_id = desk.waiting(UNKNOWN, reason="outcome_unknown")
        if settled:
            await settle(run_id, by="ann", outcome="fail", database=desk.database)
        else:
            await reject(run_id, by="ann", reason="Lost.", database=desk.database)
        run = desk.run(run_id)
        assert (run.status, run.reason, desk.workflows(run_id)) == ("failed", "outcome_unknown", [])
        assert run.error is not None
        assert (run.error["type"], run.error["module"]) == ("OutcomeUnknownError", "timestep.errors")
        assert run.error["message"].endswith("unknown." if settled else "unknown. Lost.")


async def test_malformed_settlements_are_refused(desk: Desk) -> None:
    run_id = desk.waiting(UNKNOWN, reason="outcome_unknown")
    wrong: Any
    for wrong in ("maybe", None):
        with pytest.raises(InvalidInputError, match="An outcome is"):
            await settle(run_id, by="ann", outcome=wrong, database=desk.database)
    with pytest.raises(InvalidInputError, match="JSON"):
        await settle(run_id, by="ann", outcome="happened", result={1, 2}, database=desk.database)
    assert await desk.statuses(run_id) == ["open"]


async def test_a_limit_must_be_raised_above_what_was_used(desk: Desk) -> None:
    run_id = desk.waiting(LIMIT, reason="limit")
    for low in (RunLimits(max_turns=3), RunLimits(max_tokens=900), RunLimits()):
        with pytest.raises(InvalidInputError, match="has reached max_turns=3 and used 3"):
            await raise_limits(run_id, low, by="ann", database=desk.database)
    limits = RunLimits(max_turns=9, max_seconds=60)
    made = await raise_limits(run_id, limits, by="ann", database=desk.database)
    assert (made.status, made.answer) == ("answered", {"limits": {"max_turns": 9, "max_seconds": 60}})
    assert desk.workflows(run_id) == [(f"{run_id}~2~copy", "copy_segment")]
    ended = desk.waiting(LIMIT, reason="limit")
    await reject(ended, by="ann", database=desk.database)
    assert (desk.run(ended).status, desk.run(ended).reason) == ("failed", "limit_reached")


async def test_each_kind_takes_its_own_decisions(desk: Desk) -> None:
    verbs: dict[str, Callable[[str], Any]] = {
        "approve": lambda run_id: approve(run_id, "c", by="ann", database=desk.database),
        "answer": lambda run_id: answer(run_id, "S", "c", by="ann", database=desk.database),
        "settle": lambda run_id: settle(run_id, "c", by="ann", outcome="did_not_happen", database=desk.database),
        "raise_limits": lambda run_id: raise_limits(
            run_id, RunLimits(max_turns=9), by="ann", approval_id=f"{run_id}-0", database=desk.database
        ),
    }
    kinds: dict[str, dict[str, Any]] = {"approve": {}, "answer": QUESTION, "settle": UNKNOWN, "raise_limits": LIMIT}
    for kind, fields in kinds.items():
        run_id = desk.waiting(fields | {"call_id": "c"})
        for name, verb in verbs.items():
            if name != kind:
                with pytest.raises(InvalidInputError, match="another kind of decision") as refused:
                    await verb(run_id)
                assert f"`{kind}`" in refused.value.hint
        assert (await desk.statuses(run_id), desk.run(run_id).status) == (["open"], "interrupted")
        await verbs[kind](run_id)
        assert desk.run(run_id).status == "queued"


async def test_what_is_not_there_and_who_is_nobody_are_refused(desk: Desk) -> None:
    run_id, other = desk.waiting({}), desk.waiting({})
    database = desk.database
    with pytest.raises(RunNotFoundError, match="'nowhere'"):
        await approve("nowhere", by="ann", database=database)
    with pytest.raises(ApprovalNotFoundError, match="has no call 'call_9'"):
        await approve(run_id, "call_9", by="ann", database=database)
    with pytest.raises(ApprovalNotFoundError, match=f"has no approval '{other}-0'"):
        await approve(run_id, approval_id=f"{other}-0", by="ann", database=database)
    with pytest.raises(ApprovalNotFoundError, match="'nothing'"):
        await get_approval("nothing", database=database)
    nobody: Any
    for nobody in ("", "  ", None, 7):
        with pytest.raises(InvalidInputError, match="Who decides is text"):
            await approve(run_id, by=nobody, database=database)
    await approve(run_id, by="ann", database=database)
    with pytest.raises(ApprovalNotFoundError, match="waits for no decision: it is queued"):
        await approve(run_id, by="ann", database=database)


async def test_a_run_that_has_asked_hundreds_of_times_is_decided_by_its_newest_question(desk: Desk) -> None:
    run_id = desk.waiting(*({} for _ in range(120)))
    desk.sql(
        "update timestep.approvals set status = 'approved', asked_at = now() - interval '1 hour' "
        "where run_id = :id and place < 119", id=run_id,
    )  # fmt: skip
    for call_id in (None, "call_119"):
        with pytest.raises(ApprovalChangedError):
            await approve(run_id, call_id, by="ann", arguments_digest="other", database=desk.database)
    assert (await approve(run_id, by="ann", database=desk.database)).place == 119


async def test_the_list_has_what_waits_oldest_first(desk: Desk) -> None:
    first, second = desk.waiting({}, QUESTION), desk.waiting({})
    before = [each.id for each in await list_approvals(database=desk.database, limit=1000)]
    assert before[-3:] == [f"{first}-0", f"{first}-1", f"{second}-0"]
    await approve(first, "call_0", by="ann", database=desk.database)
    assert [each.id for each in await list_approvals(first, database=desk.database)] == [f"{first}-1"]
    everything = await list_approvals(first, is_waiting=False, database=desk.database)
    assert [each.status for each in everything] == ["approved", "open"]
    assert len(await list_approvals(database=desk.database, limit=1)) == 1
