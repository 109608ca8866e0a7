"""Live output of a run: events that its steps write to the DBOS stream of their segment.

A stream entry is a list of events that were written together. An event is a JSON object with `type`, `step` (the name
of the step that wrote it), `turn`, `path` (empty at the top, `<turn>:<call>/` inside a sub-agent), `segment`, `attempt`
(`<execution of the segment>.<retry inside the step>`) and `number`, from 1 on within step and attempt. A repeated
attempt writes its events again: the newest segment and attempt that wrote for a step replaces what is older.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from timestep.durable.journal.scope import Scope
from timestep.durable.seams import dbos_sdk
from timestep.ids import segment_id
from timestep.store.stream_segments import FIRST, StreamSegment, insert_stream_segment, list_stream_segments

BATCH_SECONDS = 0.05
"""How long an event waits for others before it is written; a step that ends does not wait."""


class StepEvents:
    """The events of one execution of a step, when the run streams. `async with` it inside the step's body.

    They are written while the step runs, and all of them before it is recorded.
    """

    def __init__(self, scope: Scope, step: str) -> None:
        self._segment = scope.segment
        self._where = {"step": step, "turn": scope.turn, "path": scope.path, "segment": scope.segment.number}
        self._timer: asyncio.Task[None] | None = None

    def add(self, event: dict[str, Any], *, retry: int = 0) -> None:
        """Say an event; it is written soon."""
        if not self._segment.stream:
            return
        self._segment.writer.add(event | self._where | {"attempt": f"{self._segment.attempt}.{retry}"})
        if self._timer is None or self._timer.done():
            self._timer = asyncio.ensure_future(self._flush_later())

    async def __aenter__(self) -> StepEvents:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        timer.cancel()
        await asyncio.wait((timer,))
        if not timer.cancelled():
            timer.exception()  # what could not be written waits again, and is written now or fails here
        if error is None or isinstance(error, Exception):  # a step that fails is recorded too
            await self._segment.writer.flush()

    async def _flush_later(self) -> None:
        await asyncio.sleep(BATCH_SECONDS)
        await self._segment.writer.flush()


def begin_stream(connection: sa.Connection, run_id: str, number: int) -> None:
    """Store where the stream of segment `number` begins, from 2 on, before anything is written to it.

    Harmless when repeated: the first start counts. The segments before it are closed, and write nothing any more.
    """
    known = list_stream_segments(connection, run_id)
    if number in known:
        return
    before = max((each for each in known.values() if each.number < number), key=lambda each: each.number, default=FIRST)
    ends = dbos_sdk.stream_ends(connection, [segment_id(run_id, each) for each in (before.number, number)])
    written = ends.get(segment_id(run_id, before.number), 0) - before.copied_entries
    begun = StreamSegment(
        number=number,
        first_offset=before.first_offset + max(0, written),
        copied_entries=ends.get(segment_id(run_id, number), 0),
    )
    insert_stream_segment(connection, run_id, begun)
