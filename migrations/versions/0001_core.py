"""The core: agents, sessions, runs, snapshots, tool calls, approvals, usage, executors.

A shipped migration never changes. Plain `op` calls with comments, never the tables of `timestep.store`: they go
on, this file stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "timestep"


def upgrade() -> None:
    """Make every table of the core."""
    _comment_on_version_table()
    _agents()
    _sessions()
    _session_items()
    _runs()
    _run_states()
    _tool_calls()
    _approvals()
    _usage()
    _executors()


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")


def _comment_on_version_table() -> None:
    op.execute(
        f"comment on table {SCHEMA}.alembic_version is 'The migration that this schema is at; one row.'"
    )
    op.execute(
        f"comment on column {SCHEMA}.alembic_version.version_num is 'Revision, as in migrations/versions.'"
    )


def _agents() -> None:
    op.create_table(
        "agents",
        sa.Column(
            "hash", sa.Text(), nullable=False, comment="SHA-256 of the canonical JSON of `definition`."
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Name under which runs find the agent."),
        sa.Column(
            "definition",
            sa.JSON(),
            nullable=False,
            comment="Instructions, model, tools, handoffs, guardrails.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this definition was first seen.",
        ),
        sa.PrimaryKeyConstraint("hash"),
        schema=SCHEMA,
        comment="Agent definitions by content hash, for people and other languages.",
    )
    op.create_index("ix_timestep_agents_name", "agents", ["name"], schema=SCHEMA)


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), nullable=False, comment="Session id."),
        sa.Column(
            "last_position",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Highest position ever given; a writer raises it first, which locks the session.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the session was made.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When items were last added or removed.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
        comment="Conversations across runs.",
    )


def _session_items() -> None:
    op.create_table(
        "session_items",
        sa.Column("session_id", sa.Text(), nullable=False, comment="The session."),
        sa.Column(
            "position",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Order within the session, rising, with gaps after removals.",
        ),
        sa.Column(
            "run_id",
            sa.Text(),
            nullable=True,
            comment="Run that added the item; null when a program added it.",
        ),
        sa.Column("item", sa.JSON(), nullable=False, comment="A Responses API input item."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the item was stored.",
        ),
        sa.ForeignKeyConstraint(["session_id"], [f"{SCHEMA}.sessions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("session_id", "position"),
        schema=SCHEMA,
        comment="Conversation items, each stored exactly once.",
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False, comment="Run id: the caller's idempotency key."),
        sa.Column("agent", sa.Text(), nullable=False, comment="Name of the agent that the run starts with."),
        sa.Column(
            "agent_hash",
            sa.Text(),
            nullable=True,
            comment="Hash of the agent's definition when a segment last started.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="queued, running, interrupted, succeeded, failed or cancelled.",
        ),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=True,
            comment="Why the run is interrupted, failed or cancelled; a word.",
        ),
        sa.Column(
            "segment",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="Number of the newest segment.",
        ),
        sa.Column(
            "closed_segment",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Number of the last segment whose closing transaction is stored.",
        ),
        sa.Column(
            "attempt",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="How often the newest segment was started.",
        ),
        sa.Column("session_id", sa.Text(), nullable=True, comment="Session of the run."),
        sa.Column(
            "session_position",
            sa.BigInteger(),
            nullable=True,
            comment="Last session item that the run saw when its first segment started.",
        ),
        sa.Column(
            "session_items_stored",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="How many items of the newest segment a failed attempt has put into the session.",
        ),
        sa.Column("input", sa.JSON(), nullable=False, comment="Text or input items, as given."),
        sa.Column(
            "input_digest",
            sa.Text(),
            nullable=False,
            comment="SHA-256 of agent, input, session and context: the same id must bring the same.",
        ),
        sa.Column("context", sa.JSON(), nullable=True, comment="The context at the start, as JSON."),
        sa.Column(
            "options",
            sa.JSON(),
            nullable=False,
            comment="max_turns, model, stream and the JSON-able part of run_config.",
        ),
        sa.Column(
            "queue", sa.Text(), nullable=True, comment="Queue of the run; null when it was started directly."
        ),
        sa.Column(
            "parent_run_id", sa.Text(), nullable=True, comment="Run or workflow that started this one."
        ),
        sa.Column(
            "executor_id", sa.Text(), nullable=True, comment="Executor that started the newest segment last."
        ),
        sa.Column(
            "application_version", sa.Text(), nullable=True, comment="Application version of that executor."
        ),
        sa.Column(
            "timeout_seconds", sa.Float(), nullable=True, comment="Limit of execution over all segments."
        ),
        sa.Column(
            "executed_seconds",
            sa.Float(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Execution time of closed and cancelled segments.",
        ),
        sa.Column(
            "deadline_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the executing segment reaches the limit.",
        ),
        sa.Column(
            "last_agent",
            sa.Text(),
            nullable=True,
            comment="Name of the agent that the last closed segment ended with.",
        ),
        sa.Column(
            "segment_started_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the newest segment started.",
        ),
        sa.Column(
            "output", sa.JSON(), nullable=True, comment="Final output; text, or the JSON of the output type."
        ),
        sa.Column(
            "error", sa.JSON(), nullable=True, comment="Error envelope: type, module, message, fields."
        ),
        sa.Column(
            "requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="Model calls."
        ),
        sa.Column(
            "input_tokens",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Input tokens.",
        ),
        sa.Column(
            "cached_tokens",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Input tokens from a cache.",
        ),
        sa.Column(
            "output_tokens",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Output tokens.",
        ),
        sa.Column(
            "reasoning_tokens",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Output tokens spent on reasoning.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the run was asked for.",
        ),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), nullable=True, comment="When its first segment started."
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it succeeded, failed or was cancelled.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
        comment="Runs: one row for each piece of work given to an agent.",
    )
    op.create_index("runs_by_created", "runs", ["created_at", "id"], schema=SCHEMA)
    op.create_index("runs_by_session", "runs", ["session_id", "created_at"], schema=SCHEMA)
    op.create_index("runs_by_status", "runs", ["status", "created_at"], schema=SCHEMA)


def _run_states() -> None:
    op.create_table(
        "run_states",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False, comment="Rises with time."),
        sa.Column(
            "run_id", sa.Text(), nullable=True, comment="Run of the snapshot; null when a program saved it."
        ),
        sa.Column(
            "session_id", sa.Text(), nullable=True, comment="Session under which the snapshot is found."
        ),
        sa.Column("segment", sa.Integer(), nullable=True, comment="Segment that ended with this snapshot."),
        sa.Column("kind", sa.Text(), nullable=False, comment="interrupted, final, checkpoint or saved."),
        sa.Column("agent", sa.Text(), nullable=False, comment="Name of the agent that the run started with."),
        sa.Column("sdk", sa.Text(), nullable=False, comment="Writer of `state`: python or javascript."),
        sa.Column("sdk_version", sa.Text(), nullable=False, comment="Version of the writer's Agents SDK."),
        sa.Column("schema_version", sa.Text(), nullable=False, comment="The state's $schemaVersion."),
        sa.Column("state", sa.JSON(), nullable=False, comment="The writer's own RunState JSON, untouched."),
        sa.Column(
            "output", sa.JSON(), nullable=True, comment="Final output, which a Python RunState does not keep."
        ),
        sa.Column(
            "held_items",
            sa.JSON(),
            nullable=True,
            comment="Session items of an unfinished turn, held back until it is finished.",
        ),
        sa.Column(
            "is_active",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="False after clear(): kept, no longer loaded.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the snapshot was stored.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
        comment="Snapshots: stored RunStates.",
    )
    op.create_index("run_states_by_run", "run_states", ["run_id", "id"], schema=SCHEMA)
    op.create_index("run_states_by_session", "run_states", ["session_id", "id"], schema=SCHEMA)


def _tool_calls() -> None:
    op.create_table(
        "tool_calls",
        sa.Column("run_id", sa.Text(), nullable=False, comment="The run."),
        sa.Column(
            "call_key",
            sa.Text(),
            nullable=False,
            comment="turn:call id, in a sub-agent after the outer call's; with the run id the idempotency key.",
        ),
        sa.Column("segment", sa.Integer(), nullable=False, comment="Segment in which the call finished."),
        sa.Column("agent", sa.Text(), nullable=False, comment="Agent that asked for the call."),
        sa.Column("tool", sa.Text(), nullable=False, comment="Name of the tool."),
        sa.Column("call_id", sa.Text(), nullable=False, comment="Call id of the provider."),
        sa.Column("arguments", sa.Text(), nullable=False, comment="Arguments as the model wrote them."),
        sa.Column("result", sa.JSON(), nullable=True, comment="What the tool returned."),
        sa.Column("error", sa.JSON(), nullable=True, comment="Error envelope of a call that raised."),
        sa.Column(
            "attempt",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="Attempt that was recorded.",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the recorded attempt started.",
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the recorded attempt finished.",
        ),
        sa.PrimaryKeyConstraint("run_id", "call_key"),
        schema=SCHEMA,
        comment="Tool calls of closed segments.",
    )


def _approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", sa.Text(), nullable=False, comment="Approval id."),
        sa.Column("run_id", sa.Text(), nullable=False, comment="The run that waits."),
        sa.Column("segment", sa.Integer(), nullable=False, comment="Segment that ended with this question."),
        sa.Column("session_id", sa.Text(), nullable=True, comment="Session of the run."),
        sa.Column("agent", sa.Text(), nullable=False, comment="Agent that asked for the call."),
        sa.Column("tool", sa.Text(), nullable=False, comment="Name of the tool."),
        sa.Column("call_id", sa.Text(), nullable=False, comment="Call id of the provider."),
        sa.Column("arguments", sa.Text(), nullable=False, comment="Arguments as the model wrote them."),
        sa.Column("arguments_digest", sa.Text(), nullable=False, comment="SHA-256 of `arguments`."),
        sa.Column(
            "status",
            sa.Text(),
            server_default="open",
            nullable=False,
            comment="open, approved, rejected or expired.",
        ),
        sa.Column(
            "is_sticky",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="True when the decision holds for the rest of the run.",
        ),
        sa.Column("decided_by", sa.Text(), nullable=True, comment="Who decided."),
        sa.Column("reason", sa.Text(), nullable=True, comment="What the model is told after a rejection."),
        sa.Column(
            "asked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the run was interrupted.",
        ),
        sa.Column(
            "expires_at", sa.DateTime(timezone=True), nullable=True, comment="When the question expires."
        ),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True, comment="When it was decided."),
        sa.Column(
            "consumed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When a segment started with the decision.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
        comment="Decisions about tool calls: who, when, about which arguments.",
    )
    op.create_index("ix_timestep_approvals_run_id", "approvals", ["run_id"], schema=SCHEMA)


def _usage() -> None:
    op.create_table(
        "usage",
        sa.Column("run_id", sa.Text(), nullable=False, comment="The run."),
        sa.Column("step", sa.Text(), nullable=False, comment="Name of the model_turn step."),
        sa.Column("segment", sa.Integer(), nullable=False, comment="Segment in which the call finished."),
        sa.Column("agent", sa.Text(), nullable=False, comment="Agent that called the model."),
        sa.Column("model", sa.Text(), nullable=True, comment="Model name as the agent names it."),
        sa.Column(
            "provider", sa.Text(), nullable=True, comment="Class or prefix of the provider that answered."
        ),
        sa.Column("requests", sa.Integer(), nullable=False, comment="Model calls, retries included."),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False, comment="Input tokens."),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False, comment="Input tokens from a cache."),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False, comment="Output tokens."),
        sa.Column(
            "reasoning_tokens", sa.BigInteger(), nullable=False, comment="Output tokens spent on reasoning."
        ),
        sa.Column(
            "cost_micro_usd",
            sa.BigInteger(),
            nullable=True,
            comment="Cost in millionths of a US dollar; null when the price is unknown.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the call finished.",
        ),
        sa.PrimaryKeyConstraint("run_id", "step"),
        schema=SCHEMA,
        comment="Tokens and cost of each finished model call of closed segments.",
    )


def _executors() -> None:
    op.create_table(
        "executors",
        sa.Column(
            "id", sa.Text(), nullable=False, comment="Executor id; its session lock tells whether it lives."
        ),
        sa.Column(
            "application_version", sa.Text(), nullable=False, comment="Version of the segments that it takes."
        ),
        sa.Column("host", sa.Text(), nullable=False, comment="Host name."),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Process id on that host."),
        sa.Column(
            "process_space",
            sa.Text(),
            nullable=False,
            comment="Boot and pid namespace: an executor with the same value can tell whether the pid is dead.",
        ),
        sa.Column("agents", sa.JSON(), nullable=False, comment="Names of the registered agents."),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the executor started.",
        ),
        sa.Column(
            "free_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its lock was first seen free; null while it lives.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=SCHEMA,
        comment="Processes that execute segments.",
    )
