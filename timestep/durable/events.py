"""Live output of a run: events written to the run's DBOS stream, in batches, from inside its steps.

An event is a JSON object with `type`, `turn`, `attempt` and `path` (empty at the top, `<turn>:<call>/` inside a
sub-agent). Types: `text_delta` {text, agent}, `turn_finished` {agent, model, usage, seconds},
`tool_started` {tool, call_id, arguments}, `tool_finished` {tool, call_id, is_error}, `run_finished` {status, reason}.
A stream entry is a list of events; the number of an entry is its offset. A repeated attempt of a turn writes its
events again under a newer `attempt`, which replaces those of the same step.
"""

from __future__ import annotations

import time
from typing import Any

from dbos import DBOS

from timestep.durable.scope import Scope
from timestep.ids import STREAM_KEY

BATCH_SECONDS = 0.06
"""How long text may wait for more of it: at most about 17 writes a second for one model call."""


async def emit(scope: Scope, *events: dict[str, Any], retry: int = 0) -> None:
    """Write events to the run's stream, when the run streams. Only inside a step."""
    if not scope.segment.stream or not events:
        return
    attempt = f"{scope.segment.attempt}.{retry}"
    common = {"turn": scope.turn, "attempt": attempt, "path": scope.path}
    await DBOS.write_stream_async(STREAM_KEY, [event | common for event in events])


class TextBatch:
    """Text deltas on their way to the stream, joined while they wait."""

    def __init__(self, scope: Scope, agent: str, retry: int) -> None:
        self.scope, self.agent, self.retry = scope, agent, retry
        self.text, self.flushed_at = "", time.monotonic()

    async def add(self, text: str) -> None:
        """Add text; write what has waited long enough."""
        self.text += text
        if time.monotonic() - self.flushed_at >= BATCH_SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        if self.text:
            text, self.text = self.text, ""
            await emit(self.scope, {"type": "text_delta", "text": text, "agent": self.agent}, retry=self.retry)
        self.flushed_at = time.monotonic()
