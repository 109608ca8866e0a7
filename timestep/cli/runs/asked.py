"""What to type about what a run waits for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from timestep.client.asked import short_id, wish
from timestep.records import Approval, Run


def commands(approval: Approval, asked: Sequence[Approval]) -> list[str]:
    """Return the commands that decide an approval; `asked` is all that its run waits for."""
    run = _target(approval, asked)
    match approval.kind:
        case "approval":
            name = shlex.quote(short_id(approval))
            return [f"timestep approvals approve {name}", f"timestep approvals reject {name} --reason TEXT"]
        case "question":
            return [f"timestep runs answer {run[0]} TEXT{run[1]}"]
        case "outcome_unknown":
            return [
                f"timestep runs settle {run[0]}{run[1]} --happened JSON",
                f"timestep runs settle {run[0]}{run[1]} --did-not-happen",
                f"timestep runs settle {run[0]}{run[1]} --fail",
            ]
        case "limit":
            name = str((approval.details or {}).get("limit", "max_turns")).replace("_", "-")
            return [
                f"timestep runs raise-limits {run[0]} --{name} N",
                f"timestep approvals reject {shlex.quote(short_id(approval))}",
            ]


def waiting_lines(run: Run, asked: Sequence[Approval]) -> list[str]:
    """Return what an interrupted run waits for, each followed by the commands to type; nothing for another run."""
    if run.status != "interrupted":
        return []
    if not asked:
        if run.reason == "agent_not_registered":  # it goes on by itself where the agent is known
            return [f"waits for an executor that has the agent {run.agent!r}", "  timestep worker MODULE"]
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
