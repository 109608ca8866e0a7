"""Tool calls of closed segments: `tool_calls`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from timestep.store.json_text import storable_text
from timestep.store.tables import insert_rows, row_values, tool_calls


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One recorded tool call. `call_key` with the run id is the idempotency key."""

    run_id: str
    call_key: str
    segment: int
    agent: str
    tool: str
    call_id: str
    arguments: str
    result: Any = None
    error: dict[str, Any] | None = None
    attempt: int = 1
    started_at: datetime | None = None
    finished_at: datetime | None = None


COLUMNS = tuple(ToolCall.__dataclass_fields__)
_INSERT = sa.text(insert_rows(tool_calls, COLUMNS, "calls"))


def insert_tool_calls(connection: sa.Connection, calls: Sequence[ToolCall]) -> None:
    """Store the calls; those that are there already stay as they are. May be repeated."""
    if calls:
        connection.execute(_INSERT, tool_call_values(calls))


def tool_call_values(calls: Sequence[ToolCall]) -> dict[str, list[Any]]:
    """Return the calls as parameters of `insert_rows` with the prefix `calls`."""
    rows = [{**vars(call), "arguments": storable_text(call.arguments)} for call in calls]
    return row_values(tool_calls, COLUMNS, "calls", rows)


def list_tool_calls(connection: sa.Connection, run_id: str) -> list[ToolCall]:
    """Return the run's calls in the order in which they started."""
    query = (
        sa.select(*(tool_calls.c[name] for name in COLUMNS))
        .where(tool_calls.c.run_id == run_id)
        .order_by(tool_calls.c.segment, tool_calls.c.started_at, tool_calls.c.call_key)
    )
    return [ToolCall(**row) for row in connection.execute(query).mappings()]
