"""`timestep.Client`: all verbs with nothing but a connection string."""

from __future__ import annotations

from decision_desk import LIMIT, QUESTION, UNKNOWN, Desk

from timestep.client import Client
from timestep.records import RunLimits


async def test_a_client_decides_with_nothing_but_a_connection_string(desk: Desk, url: str) -> None:
    run_id = desk.waiting({}, {}, QUESTION)
    async with Client(url) as client:
        asked = await client.list_approvals(run_id)
        assert [each.kind for each in asked] == ["approval", "approval", "question"]
        shown = await client.get_approval(asked[0].id)
        await client.approve(run_id, approval_id=shown.id, arguments_digest=shown.arguments_digest, by="ann")
        await client.reject(run_id, "call_1", by="ann", reason="no")
        await client.answer(run_id, "S", by="ann")
        assert (await client.get_run(run_id)).status == "queued"
        unknown, limit = desk.waiting(UNKNOWN), desk.waiting(LIMIT)
        assert (await client.settle(unknown, by="ann", outcome="did_not_happen")).status == "answered"
        assert (await client.raise_limits(limit, RunLimits(max_turns=9), by="ann")).status == "answered"
    assert await desk.statuses(run_id) == ["approved", "rejected", "answered"]
