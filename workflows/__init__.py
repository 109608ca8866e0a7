"""A deployment that works as it stands: agents, a queue, a schedule. `timestep init` copies it; change what you like.

python -m workflows                            an executor; what `dbos start` runs
timestep run "hello" --agent assistant         give it work, from any terminal
"""

from workflows.agents import assistant, reporter
from workflows.queues import REPORTS
from workflows.schedules import daily_report

__all__ = ["REPORTS", "assistant", "daily_report", "reporter"]
