"""`timestep.Client`: all verbs with nothing but a connection string."""

from __future__ import annotations

import pytest
from decision_desk import LIMIT, QUESTION, UNKNOWN, Desk

from timestep.client import Client
from timestep.errors import SessionInUseError, SessionNotFoundError
from timestep.records import RunLimits
from timestep.store.connection import open_database
from timestep.store.sessions import append_items, last_position, read_items

ITEM = {"role": "user", "content": "Hello"}


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


async def test_a_client_lists_shows_and_deletes_conversations(url: str) -> None:
    database = open_database(url, application="test")
    for name in ("older", "newer"):
        database.run_sync(append_items, name, [ITEM, ITEM])
    async with Client(url) as client:
        assert [each.session_id for each in await client.list_sessions(limit=1)] == ["newer"]
        assert {"older", "newer"} <= {each.session_id for each in await client.list_sessions()}
        assert await client.list_session_items("older", limit=1) == [ITEM]
        handle = await client.queue_run("assistant", "Hi", session_id="older")
        with pytest.raises(SessionInUseError, match=f"1 run has not ended: {handle.run_id}"):
            await client.delete_session("older")
        assert (await client.get_session("older")).items == 2
        deleted = await client.delete_session("older", force=True)
        assert (deleted.items, deleted.run_ids, deleted.unfinished_run_ids) == (2, [handle.run_id], [handle.run_id])
        assert "older" not in [each.session_id for each in await client.list_sessions()]
        assert (await client.delete_session("newer")).runs == 0
        with pytest.raises(SessionNotFoundError):
            await client.get_session("newer")
    # A run that may go on reads up to a position: what comes later must not be taken for what it had.
    assert database.run_sync(read_items, "older") == []
    assert database.run_sync(last_position, "older") == 2
    assert database.run_sync(last_position, "newer") == 0
    database.close()
