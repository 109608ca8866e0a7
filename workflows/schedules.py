"""The schedules: runs that start by the clock, in any executor.

timestep schedules list
timestep schedules trigger nightly-report          a report now
"""

from __future__ import annotations

from timestep import create_scheduled_agent_workflow
from workflows.agents import reporter

nightly_report = create_scheduled_agent_workflow(
    "0 2 * * *", reporter, "The day that begins: date, and what to keep in mind.", name="nightly-report", timezone="UTC"
)
"""Every night at two, UTC. When no executor lives then, the newest report is made as soon as one does."""
