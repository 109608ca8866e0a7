"""Say that no executor takes a run, which agents executors do have, and how to leave."""

from __future__ import annotations

import difflib
import shlex

from timestep.cli.output import clean, note
from timestep.client.connector import Connector
from timestep.client.executors import list_live_executors

MOST_AGENTS = 20
"""Agents that are listed."""


def say_if_nobody_takes(connector: Connector, agent: str, *, what: str, run_id: str | None, waits: bool) -> None:
    """Say on stderr when no live executor has an agent. `what` waits for one; `waits`: this command does too."""
    known = sorted({name for each in list_live_executors(connector) for name in each.agents})
    if agent in known:
        return
    note(f"No live executor has the agent {agent!r}: {what} in Postgres.")
    if known:
        near = difflib.get_close_matches(agent, known, 1)
        listed = ", ".join(map(clean, known[:MOST_AGENTS])) + (" ..." if len(known) > MOST_AGENTS else "")
        note(f"  executors have:  {listed}" + (f"; did you mean {clean(near[0])!r}?" if near else ""))
    note("  start one:  timestep worker MODULE")
    if waits:
        note("  leave:      Ctrl-C; what is queued stays")
    if run_id is not None and known:
        note(f"  give it up: timestep runs cancel {shlex.quote(run_id)}")
