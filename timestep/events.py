"""Read the live events of a run, from any process and any offset."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from dbos import DBOSClient

from timestep.ids import STREAM_KEY, segment_id


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
