"""How a run ended, as commands print it: its output or its error, and the exit code."""

from __future__ import annotations

import json

from timestep.cli.errors import ExitCode, show_error
from timestep.cli.output import emit, emit_json
from timestep.records import Run
from timestep.store.approvals import open_approvals
from timestep.store.connection import Database

RESUME_HINT = "Look at it with `timestep runs show {0}`; continue it with `timestep runs resume {0}`."


def show_ending(database: Database, run: Run, *, as_json: bool, has_answer: bool = False) -> ExitCode:
    """Print how a settled run ended and return the exit code; its output only without `has_answer`."""
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
        why = "reached its time limit" if run.reason == "timeout" else f"was cancelled ({run.reason})"
        show_error(f"The run {run.run_id!r} {why}.", hint)
        return ExitCode.RUN_FAILED
    asked = database.run_sync(open_approvals, run.run_id)
    if not asked:
        show_error(f"The run {run.run_id!r} is interrupted ({run.reason}).", hint)
        return ExitCode.FAILED
    calls = ", ".join(f"{each.tool}({each.arguments})" for each in asked)
    show_error(
        f"The run {run.run_id!r} waits for an approval of {calls}.",
        f"It waits in Postgres without a process; look at it with `timestep runs show {run.run_id}`.",
    )
    return ExitCode.RUN_WAITS


def error_text(run: Run) -> str:
    """Return a failed run's error on one line."""
    if run.error is None:
        return str(run.reason)
    return " ".join(f"{run.error.get('type')}: {run.error.get('message')}".split())
