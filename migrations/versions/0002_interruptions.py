"""Interruptions: what a run waits for, decided by one SQL function in any language; snapshots that resume once.

A shipped migration never changes. Plain `op` calls with comments, never the tables of `timestep.store`: they go
on, this file stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "timestep"

ENQUEUE_SEGMENT = """
create function timestep.enqueue_segment(run text, number integer, is_copy boolean default false) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  application text := (
    select nullif(split_part(application_version, ':', 1), '') from timestep.runs where id = run);
  workflow text := run || '~' || number || case when is_copy then '~copy' else '' end;
begin
  return dbos.enqueue_workflow(
    workflow_name => case when is_copy then 'copy_segment' else 'agent_run' end,
    queue_name => 'timestep_segments',
    positional_args => array[(
      select json_build_object('agent', agent, 'run_id', id, 'segment', number) from timestep.runs where id = run)],
    workflow_id => workflow,
    application_name => application);
end $$
"""

ENQUEUE_SEGMENT_COMMENT = """
Enqueue a segment of a run on the newest application version; is_copy: one that goes on from a copy of the journal of the
segment before it. Its id is deterministic, so a repeat changes nothing. Returns the id of the DBOS workflow.
"""

DECIDE = """
create function timestep.decide(
  approval_id text, decision text, decided_by text, arguments_digest text default null, always boolean default false,
  reason text default null, answer json default null, enqueue boolean default true) returns json
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  asked timestep.approvals%rowtype;
  run timestep.runs%rowtype;
  verdict text := decide.decision;
  outcome text := 'decided';
  fails boolean;
  next_workflow text;
begin
  select * into asked from timestep.approvals where id = decide.approval_id;
  if not found then
    return json_build_object('outcome', 'unknown', 'approval_id', decide.approval_id);
  end if;
  select * into run from timestep.runs where id = asked.run_id for update;
  select * into asked from timestep.approvals where id = decide.approval_id for update;
  if asked.status <> 'open' then
    outcome := case when asked.status = 'expired' then 'expired' else 'already_decided' end;
  elsif run.status <> 'interrupted' or run.closed_segment <> asked.segment or run.segment <> asked.segment then
    outcome := 'not_waiting';
  elsif verdict not in ('approved', 'rejected', 'answered', 'expired')
      or (verdict = 'approved' and asked.kind <> 'approval') or (verdict = 'answered' and asked.kind = 'approval')
      or (verdict = 'expired' and coalesce(asked.expires_at > now(), true))
      or (verdict <> 'expired' and coalesce(btrim(decide.decided_by), '') = '') then
    outcome := 'not_allowed';
  elsif verdict = 'answered' and not coalesce(case asked.kind
      when 'question' then json_typeof(decide.answer) = 'string'
      when 'outcome_unknown' then decide.answer ->> 'outcome' in ('happened', 'did_not_happen')
      when 'limit' then json_typeof(decide.answer -> 'limits') = 'object' and (
        select count(*) > 0 and bool_and(coalesce(case
          when json_typeof(value) <> 'number' then false
          when key in ('max_turns', 'max_tool_calls', 'max_tokens', 'max_cost_micro_usd')
            then value #>> '{}' ~ '^[1-9][0-9]*$'
          when key = 'max_seconds' then (value #>> '{}')::numeric > 0 end, false))
        from json_each(case json_typeof(decide.answer -> 'limits') when 'object' then decide.answer -> 'limits' end))
      end, false) then
    outcome := 'not_allowed';
  elsif decide.arguments_digest <> asked.arguments_digest then
    outcome := 'changed';
  elsif verdict = 'answered' and json_typeof(asked.details -> 'choices') = 'array' and not exists (
      select 1 from json_array_elements_text(asked.details -> 'choices') as choice
      where choice = decide.answer #>> '{}') then
    outcome := 'not_a_choice';
  else
    if asked.expires_at <= now() then
      verdict := 'expired';
      outcome := 'expired';
    end if;
    update timestep.approvals set
      status = verdict, decided_by = case when verdict = 'expired' then null else decide.decided_by end,
      decided_at = now(), is_sticky = decide.always and verdict in ('approved', 'rejected'),
      reason = decide.reason, answer = decide.answer
    where id = asked.id or (decide.always and verdict in ('approved', 'rejected') and status = 'open'
      and run_id = asked.run_id and segment = asked.segment and agent = asked.agent and tool = asked.tool
      and coalesce(expires_at > now(), true)
      and kind = 'approval' and asked.kind = 'approval');
    select * into asked from timestep.approvals where id = asked.id;
    fails := (verdict = 'rejected' and asked.kind in ('outcome_unknown', 'limit'))
      or (verdict = 'expired' and coalesce(asked.on_expiry, 'reject') = 'fail');
    if fails then
      update timestep.runs set
        status = 'failed', finished_at = now(), reason = case
          when verdict = 'expired' then 'approval_expired'
          when asked.kind = 'limit' then 'limit_reached' else 'outcome_unknown' end,
        error = json_build_object('module', 'timestep.errors', 'type', case
          when verdict = 'expired' then 'ApprovalExpiredError'
          when asked.kind = 'limit' then 'LimitReachedError' else 'OutcomeUnknownError' end,
          'message', case
          when verdict = 'expired' then format('Nobody decided about the call of %s in time.', asked.tool)
          when asked.kind = 'limit' then coalesce(asked.details ->> 'message', 'A limit was reached.')
          else format('The outcome of the call of %s is unknown.', asked.tool) end
          || coalesce(' ' || asked.reason, ''))
      where id = run.id;
    elsif not exists (
        select 1 from timestep.approvals
        where run_id = asked.run_id and segment = asked.segment and status = 'open') then
      update timestep.runs set
        status = 'queued', reason = null, segment = asked.segment + 1, attempt = 0 where id = run.id;
      next_workflow := run.id || '~' || (asked.segment + 1);
      if decide.enqueue then
        perform timestep.enqueue_segment(run.id, asked.segment + 1, exists (
          select 1 from timestep.approvals
          where run_id = asked.run_id and segment = asked.segment and kind in ('outcome_unknown', 'limit')));
      end if;
    end if;
  end if;
  return json_build_object(
    'outcome', outcome, 'approval_id', asked.id, 'run_id', asked.run_id, 'status', asked.status,
    'decided_by', asked.decided_by, 'decided_at', asked.decided_at, 'kind', asked.kind, 'tool', asked.tool,
    'call_id', asked.call_id, 'choices', asked.details -> 'choices', 'run_status', run.status,
    'next_segment', next_workflow);
end $$
"""

DECIDE_COMMENT = """
Decide what a run waits for, once. decision: approved or rejected for an approval; answered or rejected for a question, an
unknown outcome or a limit; expired. decided_by: a name. arguments_digest: refused when it is not that of the question.
answer: text to a question; {"outcome": "happened", "result": ...} or {"outcome": "did_not_happen"}; {"limits": {...}}. When
nothing is open any more, the next segment is enqueued in the same transaction. Returns JSON whose outcome is decided,
already_decided, expired, unknown, not_waiting, not_allowed, not_a_choice or changed.
"""


def upgrade() -> None:
    """Add the columns, the indexes, the table of segments and the functions."""
    _runs()
    _approvals()
    _run_states()
    _segments()
    op.execute("comment on table timestep.tool_calls is "
               "'Tool calls of closed segments, and calls that were reserved before they started.'")  # fmt: skip
    for text, name, comment in (
        (ENQUEUE_SEGMENT, "enqueue_segment", ENQUEUE_SEGMENT_COMMENT),
        (DECIDE, "decide", DECIDE_COMMENT),
    ):
        op.execute(sa.text(text.replace(":", "\\:")))
        op.execute(f"comment on function {SCHEMA}.{name} is '{' '.join(comment.split())}'")


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")


def _runs() -> None:
    op.create_index("runs_by_agent", "runs", ["agent", "created_at"], schema=SCHEMA)
    for name, columns, condition in (
        ("runs_unfinished", ["id"], "status in ('queued', 'running')"),
        ("runs_cancelled", ["finished_at"], "status = 'cancelled'"),
        ("runs_waiting_for_agents", ["agent"], "status = 'interrupted' and reason = 'agent_not_registered'"),
    ):
        op.create_index(name, "runs", columns, schema=SCHEMA, postgresql_where=sa.text(condition))


def _approvals() -> None:
    _add("approvals", sa.Column("place", sa.Integer(), nullable=False, server_default="0",
                                comment="Order within the segment, from 0."))  # fmt: skip
    _add("approvals", sa.Column("kind", sa.Text(), nullable=False, server_default="approval",
                                comment="approval, question, outcome_unknown or limit."))  # fmt: skip
    _add("approvals", sa.Column("call_key", sa.Text(), nullable=True,
                                comment="Key of the call whose outcome is unknown, as in tool_calls."))  # fmt: skip
    _add("approvals", sa.Column("details", sa.JSON(), nullable=True,
                                comment="What is asked: question and choices, what is known, or the limit."))  # fmt: skip
    _add("approvals", sa.Column("answer", sa.JSON(), nullable=True,
                                comment="The person's answer: text, the outcome that was found, or new limits."))  # fmt: skip
    _add("approvals", sa.Column("on_expiry", sa.Text(), nullable=True,
                                comment="What expiry does: reject the call, or fail the run."))  # fmt: skip
    op.alter_column("approvals", "status", schema=SCHEMA, comment="open, approved, rejected, answered or expired.",
                    existing_type=sa.Text(), existing_nullable=False, existing_server_default="open",
                    existing_comment="open, approved, rejected or expired.")  # fmt: skip
    op.create_table_comment("approvals", schema=SCHEMA,
        comment="What runs wait for, and what was decided: who, when, about which arguments.",
        existing_comment="Decisions about tool calls: who, when, about which arguments.")  # fmt: skip
    op.create_index("approvals_by_status", "approvals", ["status", "expires_at"], schema=SCHEMA)
    op.create_index("approvals_open", "approvals", ["asked_at", "place", "id"], schema=SCHEMA,
                    postgresql_where=sa.text("status = 'open'"))  # fmt: skip


def _run_states() -> None:
    _add("run_states", sa.Column("mcp_tools", sa.JSON(), nullable=True,
                                 comment="Tool lists of MCP servers by server name, as the run last saw them."))  # fmt: skip
    _add("run_states", sa.Column("digest", sa.Text(), nullable=True,
                                 comment="SHA-256 of the text of `state` in UTF-8, in hexadecimal."))  # fmt: skip
    _add("run_states", sa.Column("is_saved", sa.Boolean(), nullable=False, server_default=sa.text("false"),
                                 comment="True when a program saved it; false when a segment ended with it."))  # fmt: skip
    _add("run_states", sa.Column("resumed_by", sa.Text(), nullable=True,
                                 comment="Run that went on from it, or `plain` for a run without an id."))  # fmt: skip
    _add("run_states", sa.Column("resumed_at", sa.DateTime(timezone=True), nullable=True,
                                 comment="When it was resumed; a snapshot is resumed once."))  # fmt: skip
    op.execute("update timestep.run_states set is_saved = true where run_id is null")


def _segments() -> None:
    op.create_table(
        "segments",
        sa.Column("run_id", sa.Text(), nullable=False, comment="The run."),
        sa.Column("number", sa.Integer(), nullable=False, comment="Number of the segment, from 2 on: 1 needs no row."),
        sa.Column("first_offset", sa.BigInteger(), nullable=False,
                  comment="Offset, counted over the run, of the segment's first stream entry."),
        sa.Column("copied_entries", sa.BigInteger(), nullable=False, server_default=sa.text("0"),
                  comment="Stream entries that were copied from the segment before, with its journal; readers skip them."),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"),
                  comment="When it started."),
        sa.PrimaryKeyConstraint("run_id", "number"),
        schema=SCHEMA,
        comment="Segments after the first, of runs with a stream.",
    )  # fmt: skip


def _add(table: str, column: sa.Column) -> None:
    op.add_column(table, column, schema=SCHEMA)
