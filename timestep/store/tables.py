"""The tables of schema `timestep` as SQLAlchemy Core sees them; `migrations/` makes them.

Payloads are `json`, not `jsonb`: they keep the writer's own text, key order and `\\u0000` included. None is
stored as SQL null, never as the JSON value `null`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from timestep.ids import SCHEMA
from timestep.store.json_text import dump_json
from timestep.words import (
    APPROVAL,
    APPROVAL_STATUSES,
    FOR_EXECUTORS,
    KINDS_OF_APPROVAL,
    RUN_STATUSES,
    listed,
    one_of,
)

metadata = sa.MetaData(schema=SCHEMA)

JSON = sa.JSON(none_as_null=True)

_KINDS = tuple(each.word for each in KINDS_OF_APPROVAL)


class UtcTime(sa.TypeDecorator[datetime]):
    """A `timestamptz` that is read as UTC, whatever time zone the server has."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time in UTC."""
        return None if value is None else value.astimezone(UTC)


def _time(name: str, comment: str, *, nullable: bool = True, default_now: bool = False) -> sa.Column[object]:
    default = sa.text("now()") if default_now else None
    return sa.Column(name, UtcTime, nullable=nullable, server_default=default, comment=comment)


agents = sa.Table(
    "agents",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True, comment="SHA-256 of the canonical JSON of `definition`."),
    sa.Column("name", sa.Text, nullable=False, index=True, comment="Name under which runs find the agent."),
    sa.Column("definition", JSON, nullable=False, comment="Instructions, model, tools, handoffs, guardrails."),
    _time("created_at", "When this definition was first seen.", nullable=False, default_now=True),
    comment="Agent definitions by content hash, for people and other languages.",
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="Session id."),
    sa.Column(
        "last_position",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="Highest position ever given; a writer raises it first, which locks the session.",
    ),
    _time("created_at", "When the session was made.", nullable=False, default_now=True),
    _time("updated_at", "When items were last added or removed.", nullable=False, default_now=True),
    comment="Conversations across runs.",
)

session_items = sa.Table(
    "session_items",
    metadata,
    sa.Column(
        "session_id",
        sa.Text,
        sa.ForeignKey(sessions.c.id, ondelete="CASCADE"),
        primary_key=True,
        comment="The session.",
    ),
    sa.Column(
        "position",
        sa.BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="Order within the session, rising, with gaps after removals.",
    ),
    sa.Column("run_id", sa.Text, comment="Run that added the item; null when a program added it."),
    sa.Column("item", JSON, nullable=False, comment="A Responses API input item."),
    _time("created_at", "When the item was stored.", nullable=False, default_now=True),
    comment="Conversation items, each stored exactly once.",
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="Run id: the caller's idempotency key."),
    sa.Column("agent", sa.Text, nullable=False, comment="Name of the agent that the run starts with."),
    sa.Column("agent_hash", sa.Text, comment="Hash of the agent's definition when a segment last started."),
    sa.Column(
        "status",
        sa.Text,
        nullable=False,
        comment=f"{listed(RUN_STATUSES)}.",
    ),
    sa.Column("reason", sa.Text, comment="Why the run is interrupted, failed or cancelled; a word."),
    sa.Column(
        "segment",
        sa.Integer,
        nullable=False,
        server_default=sa.text("1"),
        comment="Number of the newest segment.",
    ),
    sa.Column(
        "closed_segment",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="Number of the last segment whose closing transaction is stored.",
    ),
    sa.Column(
        "attempt",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="How often the newest segment was started.",
    ),
    sa.Column("session_id", sa.Text, comment="Session of the run."),
    sa.Column(
        "session_position",
        sa.BigInteger,
        comment="Last session item that the run saw when its first segment started.",
    ),
    sa.Column(
        "session_items_stored",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="How many items of the newest segment a failed attempt has put into the session.",
    ),
    sa.Column("input", JSON, nullable=False, comment="Text or input items, as given."),
    sa.Column(
        "input_digest",
        sa.Text,
        nullable=False,
        comment="SHA-256 of agent, input, session and context: the same id must bring the same.",
    ),
    sa.Column("context", JSON, comment="The context at the start, as JSON."),
    sa.Column(
        "options",
        JSON,
        nullable=False,
        comment="max_turns, model, stream and the JSON-able part of run_config.",
    ),
    sa.Column("queue", sa.Text, comment="Queue of the run; null when it was started directly."),
    sa.Column("parent_run_id", sa.Text, comment="Run or workflow that started this one."),
    sa.Column("executor_id", sa.Text, comment="Executor that started the newest segment last."),
    sa.Column("application_version", sa.Text, comment="Application version of that executor."),
    sa.Column(
        "adopted_from",
        sa.Text,
        comment="Application version that began the journal of the newest segment, when another one goes on with it.",
    ),
    sa.Column("timeout_seconds", sa.Float, comment="Limit of execution over all segments."),
    sa.Column(
        "executed_seconds",
        sa.Float,
        nullable=False,
        server_default=sa.text("0"),
        comment="Execution time of closed and cancelled segments.",
    ),
    _time("deadline_at", "When the executing segment reaches the limit."),
    sa.Column("last_agent", sa.Text, comment="Name of the agent that the last closed segment ended with."),
    _time("segment_started_at", "When the newest segment started."),
    sa.Column("output", JSON, comment="Final output; text, or the JSON of the output type."),
    sa.Column("error", JSON, comment="Error envelope: type, module, message, fields."),
    sa.Column("requests", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="Model calls."),
    sa.Column("input_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="Input tokens."),
    sa.Column(
        "cached_tokens",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="Input tokens from a cache.",
    ),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="Output tokens."),
    sa.Column(
        "reasoning_tokens",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="Output tokens spent on reasoning.",
    ),
    _time("created_at", "When the run was asked for.", nullable=False, default_now=True),
    _time("started_at", "When its first segment started."),
    _time("finished_at", "When it succeeded, failed or was cancelled."),
    sa.Column("waits_for", sa.Text, comment="Rate limit that a model call of the running run waits for."),
    _time("waits_since", "Since when it waits for it."),
    sa.Column(
        "session_place",
        sa.BigInteger,
        comment="Order among the queued runs of the session that run one at a time; null for other runs.",
    ),
    sa.Column("deduplication_id", sa.Text, comment="No other run of the queue has it while this one has not ended."),
    sa.Column(
        "priority",
        sa.Integer,
        comment="Priority in the queue, from 1, the highest, on; null is before all of them.",
    ),
    sa.Column("partition_key", sa.Text, comment="Partition of a partitioned queue."),
    _time("start_after", "When the first segment may start, of a run that was queued with a delay."),
    sa.Column("application", sa.Text, comment="Application whose executors start the queued run."),
    sa.Index(
        "runs_deduplicated",
        "queue",
        "deduplication_id",
        unique=True,
        postgresql_where=sa.text("deduplication_id is not null and status in ('queued', 'running', 'interrupted')"),
    ),
    sa.Index("runs_by_status", "status", "created_at"),
    sa.Index("runs_by_session", "session_id", "created_at"),
    sa.Index("runs_by_created", "created_at", "id"),
    sa.Index("runs_by_agent", "agent", "created_at"),
    sa.Index("runs_by_parent", "parent_run_id", postgresql_where=sa.text("parent_run_id is not null")),
    sa.Index("runs_unfinished", "id", postgresql_where=sa.text("status in ('queued', 'running')")),
    sa.Index("runs_cancelled", "finished_at", postgresql_where=sa.text("status = 'cancelled'")),
    sa.Index(
        "runs_waiting_for_agents",
        "agent",
        postgresql_where=sa.text(f"status = 'interrupted' and {one_of('reason', FOR_EXECUTORS)}"),
    ),
    sa.CheckConstraint(one_of("status", RUN_STATUSES), name="runs_status"),
    comment="Runs: one row for each piece of work given to an agent.",
)

session_queue = sa.Table(
    "session_queue",
    metadata,
    sa.Column(
        "run_id",
        sa.Text,
        sa.ForeignKey("timestep.runs.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The run; queued or running.",
    ),
    sa.Column("session_id", sa.Text, nullable=False, comment="Its session."),
    sa.Column("place", sa.BigInteger, nullable=False, comment="As runs.session_place: the smallest is next."),
    sa.Column(
        "is_waiting",
        sa.Boolean,
        nullable=False,
        server_default=sa.true(),
        comment="False for the one run that has the session.",
    ),
    sa.Column(
        "goes_on",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="True when the run had the session before; such a run is next before others.",
    ),
    sa.Column(
        "segment",
        sa.Integer,
        comment="Segment that is enqueued when it is its turn; null when another process starts it.",
    ),
    sa.Column(
        "is_copy",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="True when that segment goes on from a copy of the journal.",
    ),
    _time("start_after", "As runs.start_after: until then it is passed over."),
    sa.Index("session_queue_holder", "session_id", unique=True, postgresql_where=sa.text("not is_waiting")),
    sa.Index("session_queue_waiting", "session_id", "place", postgresql_where=sa.text("is_waiting")),
    sa.Index(
        "session_queue_delayed",
        "start_after",
        postgresql_where=sa.text("is_waiting and start_after is not null"),
    ),
    comment="Runs that have their session or wait for it, of those that run one at a time.",
)

run_states = sa.Table(
    "run_states",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True, comment="Rises with time."),
    sa.Column("run_id", sa.Text, comment="Run of the snapshot; null when a program saved it."),
    sa.Column("session_id", sa.Text, comment="Session under which the snapshot is found."),
    sa.Column("segment", sa.Integer, comment="Segment that ended with this snapshot."),
    sa.Column("kind", sa.Text, nullable=False, comment="interrupted, final, checkpoint or saved."),
    sa.Column("agent", sa.Text, nullable=False, comment="Name of the agent that the run started with."),
    sa.Column("sdk", sa.Text, nullable=False, comment="Writer of `state`: python or javascript."),
    sa.Column("sdk_version", sa.Text, nullable=False, comment="Version of the writer's Agents SDK."),
    sa.Column("schema_version", sa.Text, nullable=False, comment="The state's $schemaVersion."),
    sa.Column("state", JSON, nullable=False, comment="The writer's own RunState JSON, untouched."),
    sa.Column("output", JSON, comment="Final output, which a Python RunState does not keep."),
    sa.Column("held_items", JSON, comment="Session items of an unfinished turn, held back until it is finished."),
    sa.Column("mcp_tools", JSON, comment="Tool lists of MCP servers by server name, as the run last saw them."),
    sa.Column("digest", sa.Text, comment="SHA-256 of the text of `state` in UTF-8, in hexadecimal."),
    sa.Column(
        "is_saved",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="True when a program saved it; false when a segment ended with it.",
    ),
    sa.Column("resumed_by", sa.Text, comment="Run that went on from it, or `plain` for a run without an id."),
    _time("resumed_at", "When it was resumed; a snapshot is resumed once."),
    sa.Column(
        "is_active",
        sa.Boolean,
        nullable=False,
        server_default=sa.true(),
        comment="False after clear(): kept, no longer loaded.",
    ),
    _time("created_at", "When the snapshot was stored.", nullable=False, default_now=True),
    sa.Index("run_states_by_session", "session_id", "id"),
    sa.Index("run_states_by_run", "run_id", "id"),
    comment="Snapshots: stored RunStates.",
)

tool_calls = sa.Table(
    "tool_calls",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True, comment="The run."),
    sa.Column(
        "call_key",
        sa.Text,
        primary_key=True,
        comment="turn:call id, in a sub-agent after the outer call's; with the run id the idempotency key.",
    ),
    sa.Column("segment", sa.Integer, nullable=False, comment="Segment in which the call finished."),
    sa.Column("agent", sa.Text, nullable=False, comment="Agent that asked for the call."),
    sa.Column("tool", sa.Text, nullable=False, comment="Name of the tool."),
    sa.Column("call_id", sa.Text, nullable=False, comment="Call id of the provider."),
    sa.Column("arguments", sa.Text, nullable=False, comment="Arguments as the model wrote them."),
    sa.Column("result", JSON, comment="What the tool returned."),
    sa.Column("error", JSON, comment="Error envelope of a call that raised."),
    sa.Column(
        "attempt",
        sa.Integer,
        nullable=False,
        server_default=sa.text("1"),
        comment="Attempt that was recorded.",
    ),
    _time("started_at", "When the recorded attempt started."),
    _time("finished_at", "When the recorded attempt finished."),
    comment="Tool calls of closed segments, and calls that were reserved before they started.",
)

segments = sa.Table(
    "segments",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True, comment="The run."),
    sa.Column("number", sa.Integer, primary_key=True, comment="Number of the segment, from 2 on: 1 needs no row."),
    sa.Column(
        "first_offset",
        sa.BigInteger,
        nullable=False,
        comment="Offset, counted over the run, of the segment's first stream entry.",
    ),
    sa.Column(
        "copied_entries",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="Stream entries that were copied from the segment before, with its journal; readers skip them.",
    ),
    _time("started_at", "When it started.", nullable=False, default_now=True),
    comment="Segments after the first, of runs with a stream.",
)

approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="Approval id."),
    sa.Column("run_id", sa.Text, nullable=False, index=True, comment="The run that waits."),
    sa.Column("segment", sa.Integer, nullable=False, comment="Segment that ended with this question."),
    sa.Column("place", sa.Integer, nullable=False, server_default="0", comment="Order within the segment, from 0."),
    sa.Column(
        "kind",
        sa.Text,
        nullable=False,
        server_default=APPROVAL,
        comment=f"{listed(_KINDS)}.",
    ),
    sa.Column("session_id", sa.Text, comment="Session of the run."),
    sa.Column("agent", sa.Text, nullable=False, comment="Agent that asked for the call."),
    sa.Column("tool", sa.Text, nullable=False, comment="Name of the tool."),
    sa.Column("call_id", sa.Text, nullable=False, comment="Call id of the provider."),
    sa.Column("arguments", sa.Text, nullable=False, comment="Arguments as the model wrote them."),
    sa.Column("arguments_digest", sa.Text, nullable=False, comment="SHA-256 of `arguments`."),
    sa.Column(
        "status",
        sa.Text,
        nullable=False,
        server_default="open",
        comment=f"{listed(APPROVAL_STATUSES)}.",
    ),
    sa.Column(
        "is_sticky",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="True when the decision holds for the rest of the run.",
    ),
    sa.Column("call_key", sa.Text, comment="Key of the call whose outcome is unknown, as in tool_calls."),
    sa.Column("details", JSON, comment="What is asked: question and choices, what is known, or the limit."),
    sa.Column("answer", JSON, comment="The person's answer: text, the outcome that was found, or new limits."),
    sa.Column("on_expiry", sa.Text, comment="What expiry does: reject the call, or fail the run."),
    sa.Column("decided_by", sa.Text, comment="Who decided."),
    sa.Column("reason", sa.Text, comment="What the model is told after a rejection."),
    _time("asked_at", "When the run was interrupted.", nullable=False, default_now=True),
    _time("expires_at", "When the question expires."),
    _time("decided_at", "When it was decided."),
    _time("consumed_at", "When a segment started with the decision."),
    sa.Index("approvals_by_status", "status", "expires_at"),
    sa.Index("approvals_open", "asked_at", "place", "id", postgresql_where=sa.text("status = 'open'")),
    sa.CheckConstraint(one_of("status", APPROVAL_STATUSES), name="approvals_status"),
    sa.CheckConstraint(one_of("kind", _KINDS), name="approvals_kind"),
    comment="What runs wait for, and what was decided: who, when, about which arguments.",
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True, comment="The run."),
    sa.Column("step", sa.Text, primary_key=True, comment="Name of the model_turn step."),
    sa.Column("segment", sa.Integer, nullable=False, comment="Segment in which the call finished."),
    sa.Column("agent", sa.Text, nullable=False, comment="Agent that called the model."),
    sa.Column("model", sa.Text, comment="Model name as the agent names it."),
    sa.Column("provider", sa.Text, comment="Class or prefix of the provider that answered."),
    sa.Column("requests", sa.Integer, nullable=False, comment="Model calls, retries included."),
    sa.Column("input_tokens", sa.BigInteger, nullable=False, comment="Input tokens."),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, comment="Input tokens from a cache."),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, comment="Output tokens."),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, comment="Output tokens spent on reasoning."),
    sa.Column(
        "cost_micro_usd",
        sa.BigInteger,
        comment="Cost in millionths of a US dollar; null when the price is unknown.",
    ),
    _time("created_at", "When the call finished.", nullable=False, default_now=True),
    sa.Column(
        "price_source",
        sa.Text,
        comment="Price data and their version, or `local`; null when the price is unknown.",
    ),
    sa.Column("priced_at", sa.Date, comment="Day on which these data say that they were checked."),
    comment="Tokens and cost of each finished model call of closed segments.",
)

rate_limits = sa.Table(
    "rate_limits",
    metadata,
    sa.Column(
        "key",
        sa.Text,
        primary_key=True,
        comment="What is limited: a model's name, a provider's prefix or a host as configured; or model@host.",
    ),
    _time("requests_free_at", "When the requests taken so far are made up for; a burst may run ahead of it."),
    _time("tokens_free_at", "When the tokens taken so far are made up for; a burst may run ahead of it."),
    _time("paused_until", "Until when the provider wants no call, as its Retry-After has said."),
    comment="Rate limits of model calls, shared by all executors.",
)

executors = sa.Table(
    "executors",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="Executor id; its session lock tells whether it lives."),
    sa.Column("application_version", sa.Text, nullable=False, comment="Version of the segments that it takes."),
    sa.Column("host", sa.Text, nullable=False, comment="Host name."),
    sa.Column("pid", sa.Integer, nullable=False, comment="Process id on that host."),
    sa.Column(
        "process_space",
        sa.Text,
        nullable=False,
        comment="Boot and pid namespace: an executor with the same value can tell whether the pid is dead.",
    ),
    sa.Column("agents", JSON, nullable=False, comment="Names of the registered agents."),
    sa.Column("queues", JSON, comment="Queues that it takes runs from; null for all of them."),
    _time("started_at", "When the executor started.", nullable=False, default_now=True),
    _time("free_since", "When its lock was first seen free; null while it lives."),
    comment="Processes that execute segments.",
)


def insert_rows(
    table: sa.Table,
    columns: Sequence[str],
    prefix: str,
    *,
    same: Mapping[str, str] | None = None,
    made: Mapping[str, str] | None = None,
    after: str = "",
    conflict: str = "do nothing",
) -> str:
    """Return SQL that inserts rows which come as parameters, one array for each column; those that are there stay.

    One round trip for any number of rows, and unlike `json_populate_recordset` it takes NUL in JSON. `same` gives the
    SQL of columns that are the same in all rows, `made` that of values that are made from the given ones. With
    `after`, the name of a common table expression, nothing is inserted when that is empty. `conflict` is the SQL of
    what happens to rows that are there.
    """
    same, made = same or {}, made or {}
    varying = [name for name in columns if name not in same]
    arrays = ", ".join(f"cast(:{prefix}_{name} as {sql_type(table.c[name])}[])" for name in varying)
    values = ", ".join(same.get(name, made.get(name, f"{prefix}.{name}")) for name in columns)
    source = f"{after}, " if after else ""
    return (
        f"insert into {table.fullname} ({', '.join(columns)}) select {values} "
        f"from {source}unnest({arrays}) as {prefix} ({', '.join(varying)}) on conflict {conflict}"
    )


def row_values(
    table: sa.Table, columns: Sequence[str], prefix: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the parameters of `insert_rows`."""
    values: dict[str, str] = {}
    for name in columns:
        given = [row[name] for row in rows]
        if isinstance(table.c[name].type, sa.JSON):
            given = [None if value is None else dump_json(value) for value in given]
        values[f"{prefix}_{name}"] = "{" + ",".join(map(_array_element, given)) + "}"
    return values


def _array_element(value: str | int | bool | date | None) -> str:
    """Return a value as Postgres writes it in an array; the driver's own way takes half of a closing transaction."""
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def sql_type(column: sa.Column[Any]) -> str:
    """Return the name of a column's type in SQL."""
    names = {
        sa.JSON: "json", sa.BigInteger: "bigint", sa.Integer: "integer", sa.Text: "text", sa.Boolean: "boolean",
        sa.Date: "date", sa.Float: "float8",
    }  # fmt: skip
    for kind, name in names.items():
        if isinstance(column.type, kind):
            return name
    return "timestamptz"
