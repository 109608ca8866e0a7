"""What runs wait for, and what people decided: `approvals`.

A decision is one call of the SQL function `timestep.decide`, in every language: it locks the run, so that of two
deciders one is first, and enqueues the next segment in the transaction of the last decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from timestep.records import Approval
from timestep.store.connection import one_statement
from timestep.store.json_text import storable_text
from timestep.store.tables import JSON, approvals, row_values, runs
from timestep.words import APPROVAL, ApprovalKind, ApprovalStatus

DecisionOutcome = Literal[
    "decided", "already_decided", "expired", "unknown", "not_waiting", "not_allowed", "not_a_choice", "changed"
]

ASKED_COLUMNS = (
    "id",
    "run_id",
    "segment",
    "place",
    "kind",
    "session_id",
    "agent",
    "tool",
    "call_id",
    "call_key",
    "arguments",
    "arguments_digest",
    "details",
    "on_expiry",
    "expires_at",
)
_COLUMNS = tuple(approvals.c[name] for name in Approval.__dataclass_fields__)
_ORDER = (approvals.c.run_id, approvals.c.segment, approvals.c.place, approvals.c.id)
_AGE = (approvals.c.asked_at, approvals.c.place, approvals.c.id)
_IS_OPEN = approvals.c.status == sa.literal_column("'open'")  # as in the index, whatever plan a server keeps
_IS_ASKED_NOW = sa.and_(runs.c.id == approvals.c.run_id, runs.c.closed_segment == approvals.c.segment)
"""What an older segment asked may still be open; nobody waits for it."""

_DECIDE = sa.text("""
select timestep.decide(
  approval_id => :approval_id, decision => :decision, decided_by => :decided_by, arguments_digest => :digest,
  always => :always, reason => :reason, answer => :answer, enqueue => :enqueue)""").bindparams(
    sa.bindparam("answer", type_=JSON),
    *(sa.bindparam(name, type_=sa.Text()) for name in ("approval_id", "decision", "decided_by", "digest", "reason")),
)


_NAMED = sa.text("""
with exact as (
  select false as is_run, id from timestep.approvals where id = :text
  union all select true, id from timestep.runs where id = :text)
(select is_run, id from exact order by is_run limit 1)
union all
(select false, id from timestep.approvals where not exists (select from exact) and starts_with(id, :text)
 order by asked_at, place, id limit :limit)
union all
(select true, id from timestep.runs where not exists (select from exact) and starts_with(id, :text)
 order by created_at desc, id desc limit :limit)""")


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What `timestep.decide` answers. `next_segment` is the DBOS workflow that goes on with the run."""

    outcome: DecisionOutcome
    approval_id: str
    run_id: str = ""
    status: ApprovalStatus = "open"
    decided_by: str | None = None
    decided_at: str | None = None
    kind: ApprovalKind = APPROVAL
    tool: str = ""
    call_id: str = ""
    choices: Sequence[str] | None = None
    run_status: str = ""
    next_segment: str | None = None


def approval_values(asked: Sequence[Approval]) -> dict[str, str]:
    """Return open approvals as parameters of `insert_rows` with the prefix `asked`."""
    rows = [{**vars(approval), "arguments": storable_text(approval.arguments)} for approval in asked]
    return row_values(approvals, ASKED_COLUMNS, "asked", rows)


def decide(
    connection: sa.Connection,
    approval_id: str,
    decision: ApprovalStatus,
    *,
    decided_by: str,
    digest: str | None = None,
    always: bool = False,
    reason: str | None = None,
    answer: Any = None,
    enqueue: bool = True,
) -> Decided:
    """Decide an approval if it is open; what comes back says whether it was, and what became of the run.

    With `enqueue` false the run is made ready to go on, and the caller starts `next_segment` itself.
    """
    values = {
        "approval_id": approval_id,
        "decision": decision,
        "decided_by": decided_by,
        "digest": digest,
        "always": always,
        "reason": reason,
        "answer": answer,
        "enqueue": enqueue,
    }
    return Decided(**connection.execute(_DECIDE, values).scalar_one())


def find_approval(connection: sa.Connection, approval_id: str) -> Approval | None:
    """Return one approval; None when there is none of that id."""
    row = connection.execute(sa.select(*_COLUMNS).where(approvals.c.id == approval_id)).mappings().first()
    return Approval(**row) if row is not None else None


def find_named(connection: sa.Connection, text: str, *, limit: int = 4) -> tuple[list[str], list[str]]:
    """Return the ids of the approvals and of the runs that `text` names.

    It is the one whose id it is, an approval's first; else those whose id begins with it, `limit` of each at most.
    """
    found = connection.execute(_NAMED, {"text": text, "limit": limit}).all()
    return [row.id for row in found if not row.is_run], [row.id for row in found if row.is_run]


def open_approvals(connection: sa.Connection, run_id: str) -> list[Approval]:
    """Return what the run waits for, in the order of the questions."""
    query = sa.select(*_COLUMNS).join(runs, _IS_ASKED_NOW).where(approvals.c.run_id == run_id, _IS_OPEN)
    return [Approval(**row) for row in connection.execute(query.order_by(*_ORDER)).mappings()]


def newest_of_call(connection: sa.Connection, run_id: str, call_id: str) -> Approval | None:
    """Return what a run asked last about a call, decided or not; None when it never did."""
    query = sa.select(*_COLUMNS).where(approvals.c.run_id == run_id, approvals.c.call_id == call_id)
    newest_first = query.order_by(approvals.c.segment.desc(), approvals.c.place.desc()).limit(1)
    row = connection.execute(newest_first).mappings().first()
    return Approval(**row) if row is not None else None


def approvals_of_segment(connection: sa.Connection, run_id: str, segment: int) -> list[Approval]:
    """Return what a segment ended with, in the order of the questions, decided or not."""
    query = sa.select(*_COLUMNS).where(approvals.c.run_id == run_id, approvals.c.segment == segment).order_by(*_ORDER)
    return [Approval(**row) for row in connection.execute(query).mappings()]


def consume(connection: sa.Connection, run_id: str, *, before_segment: int) -> list[Approval]:
    """Note that a segment starts with the decisions that were taken before it, and return all of the run's.

    May be repeated: the first start keeps its time.
    """
    change = sa.update(approvals).where(
        approvals.c.run_id == run_id,
        approvals.c.segment < before_segment,
        approvals.c.status != "open",
        approvals.c.consumed_at.is_(None),
    )
    connection.execute(change.values(consumed_at=sa.func.now()))
    query = sa.select(*_COLUMNS).where(approvals.c.run_id == run_id, approvals.c.segment < before_segment)
    return [Approval(**row) for row in connection.execute(query.order_by(*_ORDER)).mappings()]


def list_approvals(
    connection: sa.Connection,
    *,
    run_id: str | None = None,
    is_waiting: bool = True,
    id_prefix: str | None = None,
    after: tuple[datetime, int, str] | None = None,
    limit: int = 100,
) -> list[Approval]:
    """Return approvals, the oldest first; `is_waiting`: only those that interrupted runs wait for.

    `after` is asking time, place and id of the last one of the page before.
    """
    query = sa.select(*_COLUMNS)
    if is_waiting:
        query = query.join(runs, _IS_ASKED_NOW).where(_IS_OPEN, runs.c.status == "interrupted")
    if run_id is not None:
        query = query.where(approvals.c.run_id == run_id)
    if id_prefix:
        query = query.where(approvals.c.id.startswith(id_prefix, autoescape=True))
    if after is not None:
        query = query.where(sa.tuple_(*_AGE) > sa.tuple_(*map(sa.literal, after)))
    query = query.order_by(*_AGE).limit(limit)
    return [Approval(**row) for row in connection.execute(query).mappings()]


@one_statement
def expired_approvals(connection: sa.Connection) -> list[str]:
    """Return the ids of open approvals of interrupted runs whose time is over."""
    query = (
        sa.select(approvals.c.id)
        .join(runs, _IS_ASKED_NOW)
        .where(_IS_OPEN, approvals.c.expires_at <= sa.func.now(), runs.c.status == "interrupted")
        .order_by(approvals.c.expires_at)
        .limit(100)
    )
    return list(connection.execute(query).scalars())
