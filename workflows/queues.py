"""The queues beside `timestep_agent_queue`, which is always there."""

from __future__ import annotations

from dbos import DBOS

REPORTS = "reports"
"""For `queue_agent_workflow(..., queue_name=REPORTS)`: two at once in all executors together."""


def register_queues() -> None:
    """Make the queues, or bring their limits up to date; after the engine is launched. May be repeated."""
    DBOS.register_queue(REPORTS, global_concurrency=2, polling_interval_sec=0.25)
