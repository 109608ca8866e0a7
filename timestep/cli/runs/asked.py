"""What to type about what a run waits for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from timestep.client.asked import short_id, wish
from timestep.records import Approval, Run
from timestep.words import AGENT_NOT_REGISTERED, CONFIGURATION_MISSING, kind_of_approval


def commands(approval: Approval, asked: Sequence[Approval]) -> list[str]:
    """Return the commands that decide an approval; `asked` is all that its run waits for."""
    run, call = _target(approval, asked)
    details: dict[str, Any] = approval.details or {}
    option = str(details.get("limit", "max_turns")).replace("_", "-")
    names = {"id": shlex.quote(short_id(approval)), "run": run, "call": call, "limit": option}
    return [command.format_map(names) for command in kind_of_approval(approval.kind).commands]


def waiting_lines(run: Run, asked: Sequence[Approval]) -> list[str]:
    """Return what an interrupted run waits for, each followed by the commands to type; nothing for another run."""
    if run.status != "interrupted":
        return []
    if not asked:
        if run.reason == AGENT_NOT_REGISTERED:  # it goes on by itself where the agent is known
            return [f"waits for an executor that has the agent {run.agent!r}", "  timestep worker MODULE"]
        if run.reason == CONFIGURATION_MISSING:
            what = f"the agent {run.agent!r} with the code of this run's configuration"
            return [f"waits for an executor that has {what}", "  timestep worker MODULE"]
        return ["waits until its cause is mended", f"  timestep runs resume {shlex.quote(run.run_id)}"]
    return [
        line
        for each in asked
        for line in (f"waits for {wish(each)}", *(f"  {command}" for command in commands(each, asked)))
    ]


def _target(approval: Approval, asked: Sequence[Approval]) -> tuple[str, str]:
    """Return the words that name an approval to the verbs of `timestep runs`: before and after their text."""
    same = [each for each in asked if each.kind == approval.kind]
    if len(same) <= 1:
        return shlex.quote(approval.run_id), ""
    if [each.call_id for each in same].count(approval.call_id) == 1 and approval.call_id:
        return shlex.quote(approval.run_id), f" --call {shlex.quote(approval.call_id)}"
    return shlex.quote(short_id(approval)), ""
