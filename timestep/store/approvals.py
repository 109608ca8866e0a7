"""Decisions about tool calls: `approvals`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from timestep.store.json_text import storable_text
from timestep.store.tables import approvals, insert_rows, row_values

ApprovalStatus = Literal["open", "approved", "rejected", "expired"]


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One tool call that waits for a person, or was decided.

    `arguments` are as the model wrote them, except NUL and lone surrogates: they become JSON escapes.
    `arguments_digest` is the caller's.
    """

    id: str
    run_id: str
    segment: int
    session_id: str | None
    agent: str
    tool: str
    call_id: str
    arguments: str
    arguments_digest: str
    status: ApprovalStatus = "open"
    is_sticky: bool = False
    decided_by: str | None = None
    reason: str | None = None
    asked_at: datetime | None = None
    expires_at: datetime | None = None
    decided_at: datetime | None = None
    consumed_at: datetime | None = None


ASKED_COLUMNS = (
    "id",
    "run_id",
    "segment",
    "session_id",
    "agent",
    "tool",
    "call_id",
    "arguments",
    "arguments_digest",
    "expires_at",
)
_INSERT = sa.text(insert_rows(approvals, ASKED_COLUMNS, "asked"))
_COLUMNS = tuple(approvals.c[name] for name in Approval.__dataclass_fields__)


def insert_approvals(connection: sa.Connection, asked: Sequence[Approval]) -> None:
    """Store open approvals, asked now; those that are there already stay as they are. May be repeated."""
    if asked:
        connection.execute(_INSERT, approval_values(asked))


def approval_values(asked: Sequence[Approval]) -> dict[str, list[Any]]:
    """Return open approvals as parameters of `insert_rows` with the prefix `asked`."""
    rows = [{**vars(approval), "arguments": storable_text(approval.arguments)} for approval in asked]
    return row_values(approvals, ASKED_COLUMNS, "asked", rows)


def open_approvals(connection: sa.Connection, run_id: str) -> list[Approval]:
    """Return what the run waits for, in the order of the questions."""
    query = (
        sa.select(*_COLUMNS)
        .where(approvals.c.run_id == run_id, approvals.c.status == "open")
        .order_by(approvals.c.segment, approvals.c.asked_at, approvals.c.id)
    )
    return [Approval(**row) for row in connection.execute(query).mappings()]
