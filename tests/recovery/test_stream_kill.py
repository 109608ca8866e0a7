"""Readers of a run whose executor is killed in mid-answer: each has every event of the history that counts, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import herald
from dbos import DBOSClient
from drill import Drill, wait_until

from timestep.client.connector import connect_client
from timestep.client.events import stream_run
from timestep.store.connection import Database, open_database

QUICK = {"TIMESTEP_TAKEOVER_SECONDS": "1"}
TURN = "model_turn:2:herald"


@contextlib.asynccontextmanager
async def desk(drill: Drill) -> AsyncIterator[tuple[Database, DBOSClient]]:
    database = open_database(drill.server.url(drill.database), application=drill.database)
    client = connect_client(database, name=drill.database)
    try:
        yield database, client
    finally:
        await asyncio.to_thread(client.destroy)
        database.close()


def text_of(events: list[dict[str, Any]], attempt: str) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text_delta" and event["attempt"] == attempt)


async def test_a_kill_in_mid_answer_is_told_to_the_live_reader_and_hidden_from_the_late_one(drill: Drill) -> None:
    async with desk(drill) as (database, client):
        live: list[dict[str, Any]] = []

        async def watch() -> None:
            async for event in stream_run("one", database=database, client=client):
                live.append(event)

        async def read(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
            return [event async for event in stream_run("one", *args, **kwargs, database=database, client=client)]

        watching = asyncio.ensure_future(watch())
        first = await asyncio.to_thread(
            drill.start, "speaker", environment=QUICK, stops={"one": "words"}, queued=["one"]
        )
        await asyncio.to_thread(drill.wait_reached, "one", child=first)
        await asyncio.to_thread(wait_until, lambda: text_of(live, "1.0") == "I saw the sea", "the words are seen")
        first.kill()
        second = await asyncio.to_thread(drill.start, "speaker", environment=QUICK, stops={"one": "words"})
        await asyncio.to_thread(drill.wait_reached, "one", child=second)
        await asyncio.to_thread(wait_until, lambda: text_of(live, "2.0") == "I saw the sea", "they are said again")
        drill.release()
        await watching
        late, raw = await read(), await read(raw=True)
        seen = max(event["offset"] for event in live if event.get("attempt") == "1.0")
        again = await read(seen + 1)

    assert [event["type"] for event in late if event["type"] != "text_delta"] == [
        "turn_finished", "tool_started", "tool_finished", "turn_finished", "run_finished",
    ]  # fmt: skip
    assert (text_of(late, "1.0"), text_of(late, "2.0")) == ("", herald.TEXT)
    assert (text_of(raw, "1.0"), text_of(raw, "2.0")) == ("I saw the sea", herald.TEXT)
    assert [(event["step"], event["attempt"]) for event in live if event["type"] == "restarted"] == [(TURN, "2.0")]
    place = [event["type"] for event in live].index("restarted")
    kept = [event for event in live[:place] if event.get("step") != TURN] + live[place + 1 :]
    assert joined(kept) == joined(late)
    assert again[0]["type"] == "restarted"
    assert joined(again[1:]) == joined(late)[-3:]
    assert drill.rows("select attempt from timestep.runs where id = 'one'") == [(2,)]


def joined(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Events by what they say, the text of a step in one."""
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == "text_delta":
            texts[event["step"]] = texts.get(event["step"], "") + event["text"]
    told = [
        (event["type"], event.get("step"), event.get("attempt"), texts.get(event.get("step", ""))) for event in events
    ]
    return list(dict.fromkeys(told))


async def test_a_reader_sees_the_end_of_a_run_whose_executor_died_before_it_closed_the_stream(drill: Drill) -> None:
    async with desk(drill) as (database, client):
        child = await asyncio.to_thread(drill.start, "speaker", stops={"one": "close after"}, queued=["one"])
        await asyncio.to_thread(drill.wait_reached, "one", child=child)
        child.kill()
        events = [event async for event in stream_run("one", database=database, client=client)]

    assert drill.workflow_status("one") == "PENDING"
    assert (events[-1]["type"], events[-1]["status"]) == ("run_finished", "succeeded")
    assert text_of(events, "1.0") == herald.TEXT
