"""Tool calls: `tool_calls`, those of closed segments, and those that are reserved before they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from timestep.store.json_text import storable_text
from timestep.store.tables import insert_rows, row_values, tool_calls


@dataclass(frozen=True, kw_only=True)
class ToolCallRow:
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


COLUMNS = tuple(ToolCallRow.__dataclass_fields__)
FINISH_RESERVED = """(run_id, call_key) do update set
  segment = excluded.segment, result = excluded.result, error = excluded.error, attempt = excluded.attempt,
  started_at = excluded.started_at, finished_at = excluded.finished_at
where timestep.tool_calls.finished_at is null"""
"""What becomes of a row that is there already: a reserved call is finished, a finished one stays."""

_RESERVE = sa.text(
    insert_rows(tool_calls, COLUMNS, "calls", conflict="(run_id, call_key) do nothing") + " returning call_key"
)


def reserve_call(connection: sa.Connection, call: ToolCallRow) -> ToolCallRow:
    """Store a call that is about to start; return it, or the row of an earlier start."""
    if connection.execute(_RESERVE, tool_call_values([call])).first() is not None:
        return call
    return get_call(connection, call.run_id, call.call_key)


def restart_call(connection: sa.Connection, call: ToolCallRow) -> None:
    """Note that a call starts again: one that a person has settled, or that had failed. May be repeated."""
    change = sa.update(tool_calls).where(tool_calls.c.run_id == call.run_id, tool_calls.c.call_key == call.call_key)
    again = {"segment": call.segment, "attempt": call.attempt, "started_at": call.started_at}
    connection.execute(change.values(again | {"finished_at": None, "result": None, "error": None}))


def get_call(connection: sa.Connection, run_id: str, call_key: str) -> ToolCallRow:
    """Return one call, finished or reserved."""
    query = sa.select(*(tool_calls.c[name] for name in COLUMNS)).where(
        tool_calls.c.run_id == run_id, tool_calls.c.call_key == call_key
    )
    return ToolCallRow(**connection.execute(query).mappings().one())


def tool_call_values(calls: Sequence[ToolCallRow]) -> dict[str, str]:
    """Return the calls as parameters of `insert_rows` with the prefix `calls`."""
    rows = [{**vars(call), "arguments": storable_text(call.arguments)} for call in calls]
    return row_values(tool_calls, COLUMNS, "calls", rows)
