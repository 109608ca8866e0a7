"""What `Client.queue_run` returns: a run that a program watches and does not execute."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from timestep.client.connector import Connector
from timestep.client.events import stream_events
from timestep.client.runs import get_run, wait_run
from timestep.records import Run
from timestep.words import FINISHED, RunStatus


@dataclass(frozen=True, kw_only=True)
class ClientRunHandle:
    """A queued run, over the connections of its client. A run of any other process is in `Client.get_run` too."""

    run_id: str
    connect: Callable[[], Awaitable[Connector]] = field(repr=False, compare=False)

    async def wait(self) -> Run:
        """Return the run when it has ended, over all of its segments and interruptions."""
        return (await wait_run(await self.connect(), self.run_id, until=FINISHED)).run

    async def events(self, from_offset: int = 0, *, raw: bool = False) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of the run to its end; see `timestep.stream_run`."""
        async with aclosing(stream_events(await self.connect(), self.run_id, from_offset, raw=raw)) as events:
            async for event in events:
                yield event

    async def status(self) -> RunStatus:
        """Return the run's status now."""
        return (await (await self.connect()).run(get_run, self.run_id)).status
