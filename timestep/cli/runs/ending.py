"""How a run ended, as commands print it: its output or its error, and the exit code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from timestep.cli.errors import ExitCode, show_error
from timestep.cli.output import emit, emit_json
from timestep.cli.runs.asked import commands
from timestep.client.approvals import open_approvals
from timestep.client.asked import clean, wish
from timestep.client.connector import Connector
from timestep.records import Approval, Run
from timestep.words import TIMEOUT

RESUME_HINT = "Look at it with `timestep runs show {0}`; continue it with `timestep runs resume {0}`."


def show_ending(
    connector: Connector, run: Run, *, as_json: bool, has_answer: bool = False, module: str | None = None
) -> ExitCode:
    """Print how a settled run ended and return the exit code; its output only without `has_answer`.

    `module` has the agent of a run that this process executed: another one must go on with it.
    """
    if as_json:
        emit_json(run)
    hint = RESUME_HINT.format(run.run_id)
    if run.status == "succeeded":
        if not as_json and not has_answer:
            emit(run.output if isinstance(run.output, str) else json.dumps(run.output, ensure_ascii=False))
        return ExitCode.DONE
    if run.status == "failed":
        show_error(f"The run {run.run_id!r} failed: {error_text(run)}", hint)
        return ExitCode.RUN_FAILED
    if run.status == "cancelled":
        why = "reached its time limit" if run.reason == TIMEOUT else f"was cancelled ({run.reason})"
        show_error(f"The run {run.run_id!r} {why}.", hint)
        return ExitCode.RUN_FAILED
    asked = open_approvals(connector, run.run_id)
    if not asked:
        why = f": {error_text(run)}" if run.error is not None else "."
        show_error(f"The run {run.run_id!r} is interrupted ({run.reason}){why}", hint)
        return ExitCode.FAILED
    show_error(*_waiting(run, asked, module))
    return ExitCode.RUN_WAITS


def error_text(run: Run) -> str:
    """Return a failed run's error on one line."""
    if run.error is None:
        return str(run.reason)
    return clean(f"{run.error.get('type')}: {run.error.get('message')}")


def _waiting(run: Run, asked: Sequence[Approval], module: str | None) -> tuple[str, str]:
    """Return what a run waits for, and what to type."""
    if len(asked) == 1:
        message = f"The run {run.run_id!r} waits for {wish(asked[0])}."
    else:
        message = "\n  ".join([f"The run {run.run_id!r} waits for {len(asked)} decisions:", *map(wish, asked)])
    lines = ["It waits in Postgres without a process, and goes on by itself when it is decided:"]
    lines += [f"  {line}" for each in asked for line in commands(each, asked)]
    if module is not None:
        lines += ["An executor must be there to go on with it:", f"  timestep worker {shlex.quote(module)}"]
    return message, "\n".join(lines)
