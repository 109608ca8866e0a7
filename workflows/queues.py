"""The queues beside `timestep_agent_queue`, which is always there."""

from __future__ import annotations

from timestep import create_queue

REPORTS = create_queue("reports", global_concurrency=2, polling_interval_seconds=0.25)
"""For `queue_agent_workflow(..., queue_name=REPORTS)`: two at once in all executors together."""
