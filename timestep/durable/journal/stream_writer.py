"""One writer for the stream of a segment: what its steps say is written together, and not too often.

DBOS commits each write of a stream by itself. However many models and tools talk at once, at most 20 of these commits
are made in any second of a run, and no event waits longer than the pace of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dbos import DBOS

from timestep.durable.seams import dbos_sdk
from timestep.errors import UnsupportedError
from timestep.ids import STREAM_KEY
from timestep.words import TEXT_DELTA

COMMITS_PER_SECOND = 15
"""Commits of a run that talks without a pause: what comes meanwhile waits for 67 ms at most."""

BURST = 4
"""Commits that a run which was silent may make at once.

With those above and the end of a stream, while the next segment begins elsewhere, 20 in any second.
"""

SHORTEST_WAIT_SECONDS = 1e-6
"""What is shorter is not waited for: it may be less than the clock can tell. The commit after it waits longer."""

Event = dict[str, Any]


class Pace:
    """When the next commit may be made. Times are seconds of a monotonic clock."""

    def __init__(self, *, burst: int, now: float) -> None:
        self._ready: float = burst
        self._since: float | None = now

    def seconds_to_wait(self, now: float) -> float:
        """Return how long the next commit has to wait, 0 when it may begin."""
        seconds = (1 - self._ready_at(now)) / COMMITS_PER_SECOND
        return seconds if seconds > SHORTEST_WAIT_SECONDS else 0.0

    def begin(self, now: float) -> None:
        """Note that a commit begins. Its own time does not count: nobody knows when in it the commit is made."""
        self._ready, self._since = self._ready_at(now) - 1, None

    def end(self, now: float) -> None:
        """Note that the commit is over."""
        self._since = now

    def _ready_at(self, now: float) -> float:
        gained = 0.0 if self._since is None else (now - self._since) * COMMITS_PER_SECOND
        return min(BURST, self._ready + gained)


class StreamWriter:
    """The events of a segment that wait, and their way into its stream, in the order in which they came."""

    def __init__(
        self,
        *,
        burst: int = BURST,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._waiting: list[Event] = []
        self._open: dict[tuple[str, str], Event] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._clock, self._sleep = clock, sleep
        self._pace = Pace(burst=burst, now=clock())

    def add(self, event: Event) -> None:
        """Let an event wait. Text joins the text of its step and attempt that waits already."""
        key = event["step"], event["attempt"]
        before = self._open.get(key)
        if event["type"] == TEXT_DELTA and before is not None and before["type"] == TEXT_DELTA:
            before["text"] += event["text"]
            return
        self._numbers[key] = self._numbers.get(key, 0) + 1
        self._open[key] = event | {"number": self._numbers[key]}
        self._waiting.append(self._open[key])

    async def flush(self) -> None:
        """Return when everything that waits is written. Only inside a step.

        A cancelled call leaves a write that has begun to itself; the next one waits for its end.
        """
        async with self._turn:
            await self._settle()
            if not self._waiting:
                return
            await self._keep_pace()
            self._writing = asyncio.ensure_future(self._write())
            self._writing.add_done_callback(_seen)
            await asyncio.shield(self._writing)

    async def settle(self) -> None:
        """Return when no write is under way: after the last step no event is added to the stream."""
        async with self._turn:
            await self._settle()

    async def close(self) -> None:
        """Close the stream, at the pace of its writes. In workflow code: DBOS records it as a step."""
        await self._keep_pace()
        await DBOS.close_stream_async(STREAM_KEY)

    async def _settle(self) -> None:
        if self._writing is not None:
            await asyncio.wait((self._writing,))

    async def _keep_pace(self) -> None:
        while (seconds := self._pace.seconds_to_wait(self._clock())) > 0:
            await self._sleep(seconds)

    async def _write(self) -> None:
        if not dbos_sdk.is_in_step():  # the step ended before this task began: DBOS would record a step of its own
            raise UnsupportedError("Events are written inside a step, and this one has ended.")
        events, self._waiting, self._open = self._waiting, [], {}
        self._pace.begin(self._clock())
        try:
            await DBOS.write_stream_async(STREAM_KEY, events)
        except BaseException:
            self._waiting[:0] = events
            raise
        finally:
            self._pace.end(self._clock())


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
