"""Queues: runs of a session that run one at a time, by rows; deduplication, priority and delay with the run.

A shipped migration never changes. Plain `op` calls with comments, never the tables of `timestep.store`: they go
on, this file stays.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "timestep"

ENQUEUE_SEGMENT = """
create or replace function timestep.enqueue_segment(run text, number integer, is_copy boolean default false) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  stored timestep.runs%rowtype;
begin
  select * into stored from timestep.runs where id = run;
  if stored.session_place is not null then
    update timestep.session_queue q set segment = number, is_copy = enqueue_segment.is_copy
    where q.run_id = run and q.is_waiting;
    if found then
      return null;
    end if;
  end if;
  return dbos.enqueue_workflow(
    workflow_name => case when is_copy then 'copy_segment' else 'agent_run' end,
    queue_name => case when number = 1 then stored.queue else 'timestep_segments' end,
    positional_args => array[case when number = 1 then json_build_object('agent', stored.agent)
      else json_build_object('agent', stored.agent, 'run_id', run, 'segment', number) end],
    workflow_id => run || case when number > 1 then '~' || number else '' end || case when is_copy then '~copy' else '' end,
    priority => case when number = 1 then stored.priority end,
    queue_partition_key => case when number = 1 then stored.partition_key end,
    delay_until_epoch_ms => case when number = 1 and stored.start_after > now()
      then (extract(epoch from stored.start_after) * 1000)::bigint end,
    application_name => coalesce(stored.application, nullif(split_part(stored.application_version, ':', 1), '')));
end $$
"""

ENQUEUE_SEGMENT_COMMENT = """
Enqueue a segment of a run on the newest application version: the first on the queue of the run. is_copy: one that goes on
from a copy of the journal of the segment before it. Its id is deterministic, so a repeat changes nothing. Returns the id of
the DBOS workflow; null when the run waits for its session, whose turn then enqueues it.
"""

ENQUEUE_RUN = """
create function timestep.enqueue_run(run text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  stored timestep.runs%rowtype;
begin
  select * into stored from timestep.runs where id = run;
  if stored.session_place is null then
    perform timestep.enqueue_segment(run, 1);
  else
    insert into timestep.session_queue (run_id, session_id, place, segment, start_after)
    values (run, stored.session_id, stored.session_place, 1, stored.start_after) on conflict (run_id) do nothing;
    if found then
      perform timestep.advance_session(stored.session_id);
    else
      perform timestep.enqueue_segment(run, 1);
    end if;
  end if;
end $$
"""

ENQUEUE_RUN_COMMENT = """
Enqueue the first segment of a stored run, now or when it is its turn in its session. A repeat changes nothing.
"""

ADVANCE_SESSION = """
create function timestep.advance_session(session text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  next timestep.session_queue%rowtype;
begin
  perform pg_advisory_xact_lock(hashtextextended('timestep-session:' || session, 0));
  if exists (select 1 from timestep.session_queue where session_id = session and not is_waiting) then
    return;
  end if;
  update timestep.session_queue set is_waiting = false where run_id = (
    select run_id from timestep.session_queue
    where session_id = session and is_waiting and coalesce(start_after <= now(), true)
    order by goes_on desc, place limit 1)
  returning * into next;
  if next.segment is not null then
    perform timestep.enqueue_segment(next.run_id, next.segment, next.is_copy);
  end if;
end $$
"""

ADVANCE_SESSION_COMMENT = """
Give a session to the run whose turn it is, if no run has it, and enqueue the segment that the run waits with. Runs that go on
come first, then the order in which they were queued; those whose start is in the future are passed over.
"""

MEND_SESSIONS = """
create function timestep.mend_sessions() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  delete from timestep.session_queue q using timestep.runs r
  where r.id = q.run_id and r.status not in ('queued', 'running');
  perform timestep.advance_session(session_id) from (
    select session_id from timestep.session_queue q
    where is_waiting and coalesce(start_after <= now(), true) and not exists (
      select 1 from timestep.session_queue h where h.session_id = q.session_id and not h.is_waiting)
    group by session_id order by hashtextextended(session_id, 0)) as stuck;
end $$
"""

MEND_SESSIONS_COMMENT = """
Go on with the sessions that nobody has although runs wait for them, as after rows were lost or restored. Executors do it.
"""

FOLLOW_RUN = """
create function timestep.follow_run() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if new.status in ('queued', 'running') then
    insert into timestep.session_queue (run_id, session_id, place, goes_on)
    values (new.id, new.session_id, new.session_place, true) on conflict (run_id) do nothing;
  else
    delete from timestep.session_queue where run_id = new.id;
  end if;
  perform timestep.advance_session(new.session_id);
  return null;
end $$
"""

FOLLOW_RUN_COMMENT = """
The trigger of runs that have a place in their session: one that ends or is interrupted gives the session to the next, and one
that goes on takes it, or waits for it, in the transaction that changes its status.
"""

TRIGGER = """
create trigger runs_take_their_session after update of status on timestep.runs for each row
when (new.session_place is not null
      and (old.status in ('queued', 'running')) is distinct from (new.status in ('queued', 'running')))
execute function timestep.follow_run()
"""


def upgrade() -> None:
    """Add the columns, the table of runs that have or want a session, the functions and the trigger."""
    op.execute(f"create sequence {SCHEMA}.session_places")
    op.execute(f"comment on sequence {SCHEMA}.session_places is 'Gives runs.session_place.'")
    _runs()
    _session_queue()
    for text, name, comment in (
        (ENQUEUE_SEGMENT, "enqueue_segment", ENQUEUE_SEGMENT_COMMENT),
        (ADVANCE_SESSION, "advance_session", ADVANCE_SESSION_COMMENT),
        (ENQUEUE_RUN, "enqueue_run", ENQUEUE_RUN_COMMENT),
        (MEND_SESSIONS, "mend_sessions", MEND_SESSIONS_COMMENT),
        (FOLLOW_RUN, "follow_run", FOLLOW_RUN_COMMENT),
    ):
        op.execute(sa.text(text.replace(":", "\\:")))
        op.execute(f"comment on function {SCHEMA}.{name} is '{' '.join(comment.split())}'")
    op.execute(TRIGGER)


def downgrade() -> None:
    """Forward only."""
    raise NotImplementedError("Timestep's migrations go forward only; restore a backup instead.")


def _runs() -> None:
    for column in (
        sa.Column("session_place", sa.BigInteger(), nullable=True,
                  comment="Order among the queued runs of the session that run one at a time; null for other runs."),
        sa.Column("deduplication_id", sa.Text(), nullable=True,
                  comment="No other run of the queue has it while this one has not ended."),
        sa.Column("priority", sa.Integer(), nullable=True,
                  comment="Priority in the queue, from 1, the highest, on; null is before all of them."),
        sa.Column("partition_key", sa.Text(), nullable=True, comment="Partition of a partitioned queue."),
        sa.Column("start_after", sa.DateTime(timezone=True), nullable=True,
                  comment="When the first segment may start, of a run that was queued with a delay."),
        sa.Column("application", sa.Text(), nullable=True, comment="Application whose executors start the queued run."),
    ):
        op.add_column("runs", column, schema=SCHEMA)
    op.create_index("runs_deduplicated", "runs", ["queue", "deduplication_id"], schema=SCHEMA, unique=True,
        postgresql_where=sa.text("deduplication_id is not null and status in ('queued', 'running', 'interrupted')"))  # fmt: skip


def _session_queue() -> None:
    op.create_table(
        "session_queue",
        sa.Column("run_id", sa.Text(), nullable=False, comment="The run; queued or running."),
        sa.Column("session_id", sa.Text(), nullable=False, comment="Its session."),
        sa.Column("place", sa.BigInteger(), nullable=False, comment="As runs.session_place: the smallest is next."),
        sa.Column("is_waiting", sa.Boolean(), nullable=False, server_default=sa.text("true"),
                  comment="False for the one run that has the session."),
        sa.Column("goes_on", sa.Boolean(), nullable=False, server_default=sa.text("false"),
                  comment="True when the run had the session before; such a run is next before others."),
        sa.Column("segment", sa.Integer(), nullable=True,
                  comment="Segment that is enqueued when it is its turn; null when another process starts it."),
        sa.Column("is_copy", sa.Boolean(), nullable=False, server_default=sa.text("false"),
                  comment="True when that segment goes on from a copy of the journal."),
        sa.Column("start_after", sa.DateTime(timezone=True), nullable=True,
                  comment="As runs.start_after: until then it is passed over."),
        sa.ForeignKeyConstraint(["run_id"], [f"{SCHEMA}.runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id"),
        schema=SCHEMA,
        comment="Runs that have their session or wait for it, of those that run one at a time.",
    )  # fmt: skip
    op.create_index("session_queue_holder", "session_queue", ["session_id"], schema=SCHEMA, unique=True,
                    postgresql_where=sa.text("not is_waiting"))  # fmt: skip
    op.create_index("session_queue_waiting", "session_queue", ["session_id", "place"], schema=SCHEMA,
                    postgresql_where=sa.text("is_waiting"))  # fmt: skip
    op.create_index("session_queue_delayed", "session_queue", ["start_after"], schema=SCHEMA,
                    postgresql_where=sa.text("is_waiting and start_after is not null"))  # fmt: skip
