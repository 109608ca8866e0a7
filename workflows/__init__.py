"""A deployment that works as it stands: agents, a queue, a schedule. `timestep init` copies it; change what you like.

python -m workflows                            an executor; what `dbos start` runs
timestep run "hello" --agent assistant         give it work, from any terminal

agents.py         one agent, one run
conversation.py   a conversation that waits for messages
batch.py          fan out over a batch, and gather
payments.py       approval by two people
schedules.py      a report every night
"""

from workflows.agents import assistant, reporter
from workflows.batch import editor, summariser
from workflows.conversation import host
from workflows.payments import cashier
from workflows.queues import REPORTS
from workflows.schedules import nightly_report

AGENTS = (assistant, reporter, host, editor, summariser, cashier)

__all__ = ["AGENTS", "REPORTS", "assistant", "cashier", "editor", "host", "nightly_report", "reporter", "summariser"]
