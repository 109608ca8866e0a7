"""Read the live events of a run, from any process and any offset."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from dbos import DBOSClient

from timestep.ids import STREAM_KEY, segment_id
from timestep.store.connection import Database


async def stream_run(
    run_id: str, from_offset: int = 0, *, raw: bool = False, database: Database, client: DBOSClient
) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a run from an offset on, those stored and those to come, to the end of the run."""
    async for event in read_events(client, run_id, offset=from_offset):
        yield event


async def read_events(
    client: DBOSClient, run_id: str, *, segment: int = 1, offset: int = 0
) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a segment, those stored and those to come, until it has ended.

    An event has `type`, `turn`, `attempt`, `path` and `offset`; go on later with `offset + 1`. A newer `attempt` of
    the same step replaces what an older one wrote.
    """
    position = offset
    async for batch in client.read_stream_async(segment_id(run_id, segment), STREAM_KEY, offset=offset):
        for event in batch:
            yield event | {"offset": position}
        position += 1
