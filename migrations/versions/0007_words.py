"""One function with the words of what runs wait for; reasons from a closed list; no impossible status and kind.

A shipped migration never changes. Plain `op` calls with comments, never the tables of `timestep.store`: they go
on, this file stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "timestep"

WORDS = """
create function timestep.words() returns json
language sql immutable set search_path = pg_catalog, pg_temp as $$ select '{
  "expiry": {
    "error": "ApprovalExpiredError", "reason": "approval_expired",
    "text": "Nobody decided about the call of %s in time."},
  "kinds": {
    "approval": {"decision": "approved", "answer": null, "is_repeated": false, "failure": null},
    "question": {"decision": "answered", "answer": "text", "is_repeated": false, "failure": null},
    "outcome_unknown": {"decision": "answered", "answer": "outcome", "is_repeated": true, "failure": {
      "error": "OutcomeUnknownError", "reason": "outcome_unknown",
      "text": "The outcome of the call of %s is unknown."}},
    "limit": {"decision": "answered", "answer": "limits", "is_repeated": true, "failure": {
      "error": "LimitReachedError", "reason": "limit_reached", "text": "A limit was reached."}}}}'::json $$
"""

WORDS_COMMENT = """
What timestep.decide knows of each kind of approval: the decision and the shape of the answer that it takes, whether the
next segment goes on from a copy of the journal, and what the run fails of when it is rejected; and of an expiry that fails.
"""

DECIDE = """
create or replace function timestep.decide(
  approval_id text, decision text, decided_by text, arguments_digest text default null, always boolean default false,
  reason text default null, answer json default null, enqueue boolean default true) returns json
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  words constant json := timestep.words();
  asked timestep.approvals%rowtype;
  run timestep.runs%rowtype;
  kind_asked json;
  verdict text := decide.decision;
  outcome text := 'decided';
  failure json;
  next_workflow text;
begin
  select * into asked from timestep.approvals where id = decide.approval_id;
  if not found then
    return json_build_object('outcome', 'unknown', 'approval_id', decide.approval_id);
  end if;
  select * into run from timestep.runs where id = asked.run_id for update;
  select * into asked from timestep.approvals where id = decide.approval_id for update;
  kind_asked := words -> 'kinds' -> asked.kind;
  if asked.status <> 'open' then
    outcome := case when asked.status = 'expired' then 'expired' else 'already_decided' end;
  elsif run.status <> 'interrupted' or run.closed_segment <> asked.segment or run.segment <> asked.segment then
    outcome := 'not_waiting';
  elsif verdict not in ('approved', 'rejected', 'answered', 'expired')
      or (verdict in ('approved', 'answered') and verdict is distinct from kind_asked ->> 'decision')
      or (verdict = 'expired' and coalesce(asked.expires_at > now(), true))
      or (verdict <> 'expired' and coalesce(btrim(decide.decided_by), '') = '') then
    outcome := 'not_allowed';
  elsif verdict = 'answered' and not coalesce(case kind_asked ->> 'answer'
      when 'text' then json_typeof(decide.answer) = 'string'
      when 'outcome' then decide.answer ->> 'outcome' in ('happened', 'did_not_happen')
      when 'limits' then json_typeof(decide.answer -> 'limits') = 'object' and (
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
      and kind = asked.kind and kind_asked ->> 'decision' = 'approved');
    select * into asked from timestep.approvals where id = asked.id;
    failure := case
      when verdict = 'rejected' then kind_asked -> 'failure'
      when verdict = 'expired' and asked.on_expiry = 'fail' then words -> 'expiry' end;
    if json_typeof(failure) = 'object' then
      update timestep.runs set
        status = 'failed', finished_at = now(), reason = failure ->> 'reason',
        error = json_build_object(
          'module', 'timestep.errors', 'type', failure ->> 'error', 'message', coalesce(
            case when verdict = 'rejected' then asked.details ->> 'message' end,
            format(failure ->> 'text', asked.tool)) || coalesce(' ' || asked.reason, ''))
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
          where run_id = asked.run_id and segment = asked.segment
            and (words -> 'kinds' -> kind ->> 'is_repeated')::boolean));
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

MEND_REASONS = """
update timestep.runs set reason = case reason
  when 'outcome_unknown_error' then 'outcome_unknown'
  when 'limit_reached_error' then 'limit_reached'
  when 'approval_expired_error' then 'approval_expired'
  when 'agent_not_registered_error' then 'agent_not_registered'
  when 'history_changed_error' then 'history_changed'
  when 'm_c_p_tool_cancellation_error' then 'mcp_tool_cancellation_error'
  else 'exception' end
where reason not in (
  'approval', 'outcome_unknown', 'limit', 'limit_reached', 'approval_expired', 'agent_not_registered',
  'history_changed', 'engine_error', 'recovery_attempts_exceeded', 'cancelled', 'parent_cancelled', 'timeout',
  'snapshot_mismatch_error', 'snapshot_damaged_error', 'snapshot_too_large_error', 'unsupported_error',
  'invalid_input_error', 'tool_result_error', 'result_too_large_error', 'journal_format_error',
  'model_not_configured_error', 'model_not_found_error', 'model_provider_error', 'model_server_unreachable_error',
  'incomplete_model_response_error', 'agents_exception', 'max_turns_exceeded', 'model_behavior_error',
  'model_refusal_error', 'model_timeout_error', 'user_error', 'mcp_tool_cancellation_error', 'tool_timeout_error',
  'input_guardrail_tripwire_triggered', 'output_guardrail_tripwire_triggered',
  'tool_input_guardrail_tripwire_triggered', 'tool_output_guardrail_tripwire_triggered', 'exception')
"""

CHECKS = (
    ("runs_status", "runs", "status in ('queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled')"),
    ("approvals_status", "approvals", "status in ('open', 'approved', 'rejected', 'answered', 'expired')"),
    ("approvals_kind", "approvals", "kind in ('approval', 'question', 'outcome_unknown', 'limit')"),
)


def upgrade() -> None:
    """Add the words, decide by them, mend the reasons, and check status and kind: old executors write valid ones."""
    for text in (WORDS, DECIDE):
        op.execute(sa.text(text.replace(":", "\\:")))
    op.execute(f"comment on function {SCHEMA}.words is '{' '.join(WORDS_COMMENT.split())}'")
    op.execute(MEND_REASONS)
    for name, table, condition in CHECKS:
        op.create_check_constraint(name, table, condition, schema=SCHEMA)


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")
