"""Rows of runs without an engine, stored as production stores them: by the start and by the closing of a segment."""

from __future__ import annotations

from typing import Any

from timestep.records import RunRequest
from timestep.store.agents import AgentDefinition
from timestep.store.connection import Database
from timestep.store.segments import Closing, close_segment, start_segment


def start_run(
    database: Database, run_id: str, *, segment: int = 1, agent: str = "desk", definition: AgentDefinition | None = None
) -> None:
    """Store a run of which a segment runs."""
    database.run_sync(
        start_segment,
        run_id=run_id,
        segment=segment,
        request=RunRequest(run_id=run_id, agent=agent, input_items="hi"),
        input_digest="d",
        executor_id="nobody",
        application_version="test",
        definition=definition,
    )


def close_run(database: Database, run_id: str, *, segment: int = 1, agent: str = "desk", **stored: Any) -> None:
    """Store a run of which a segment has ended, with what its closing transaction stores; it waits when absent."""
    start_run(database, run_id, segment=segment, agent=agent)
    fields: dict[str, Any] = {
        "run_id": run_id, "segment": segment, "status": "interrupted", "reason": "approval", "output": None,
        "error": None, "last_agent": None, "session_id": None,
    }  # fmt: skip
    assert database.run_sync(close_segment, Closing(**fields | stored))
