"""The schedules: runs that start by the clock, in any executor."""

from __future__ import annotations

from timestep import create_scheduled_agent_workflow
from workflows.agents import reporter

daily_report = create_scheduled_agent_workflow(
    "0 6 * * *", reporter, "The day that begins: date, and what to keep in mind.", name="daily-report", timezone="UTC"
)
"""Every morning at six, UTC."""
