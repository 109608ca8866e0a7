"""What an executor finds to do: of parked runs, those of its agents, some of each need."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from timestep.records import QueuedRun, RunRequest
from timestep.store.connection import Database
from timestep.store.due import ParkedRun, find_due
from timestep.store.queues import insert_queued


def park(database: Database, run_id: str, *, reason: str, agent: str = "desk", **request: object) -> None:
    fields: dict[str, object] = {"run_id": run_id, "agent": agent, "input_items": "hi", **request}
    queued = QueuedRun(request=RunRequest(**fields), input_digest="d", application="test", queue="test")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with database.engine.begin() as connection:
        insert_queued(connection, [queued])
        connection.execute(
            sa.text("update timestep.runs set status = 'interrupted', reason = :reason where id = :id"),
            {"reason": reason, "id": run_id},
        )


def test_a_parked_run_is_found_with_what_it_needs(database: Database) -> None:
    park(database, "agent", reason="agent_not_registered")
    park(database, "code", reason="configuration_missing", code=["model_provider", "tracing"], model="m")
    park(database, "config", reason="configuration_missing", code=["model_provider"], run_config={"model": "n"})
    park(database, "other", reason="configuration_missing", agent="clerk", code=["model_provider"])
    park(database, "person", reason="approval")

    assert sorted(database.run_sync(find_due, ["desk"]).waiting, key=lambda run: run.run_id) == [
        ParkedRun(run_id="agent", segment=1, agent="desk", code=(), model=None),
        ParkedRun(run_id="code", segment=1, agent="desk", code=["model_provider", "tracing"], model="m"),
        ParkedRun(run_id="config", segment=1, agent="desk", code=["model_provider"], model="n"),
    ]


def test_runs_that_cannot_go_on_here_hide_no_others(database: Database) -> None:
    for number in range(3):
        park(database, f"lacking-{number}", reason="configuration_missing", code=["tracing"])
        park(database, f"had-{number}", reason="configuration_missing", code=["model_provider"])

    found = database.run_sync(find_due, ["desk"], limit=2).waiting
    assert Counter(tuple(run.code) for run in found) == {("tracing",): 2, ("model_provider",): 2}
