"""Exit codes, and how an error is shown: `error:`, a blank line, `hint:`."""

from __future__ import annotations

import sys
import traceback
from enum import IntEnum

from timestep.errors import (
    AmbiguousCallError,
    ApprovalNotFoundError,
    DatabaseNotReadyError,
    EmbeddedPostgresError,
    InterruptionException,
    InvalidInputError,
    ModelNotConfiguredError,
    QueueNotFoundError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    ScheduleNotFoundError,
    SessionNotFoundError,
    TimestepError,
)


class ExitCode(IntEnum):
    """Exit codes of every command; they are API."""

    DONE = 0
    FAILED = 1
    BAD_USAGE = 2
    NOT_FOUND = 3
    RUN_FAILED = 4
    RUN_WAITS = 5
    DATABASE_NOT_READY = 6
    INTERRUPTED = 130


EXIT_CODE_MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed",
    ExitCode.BAD_USAGE: "bad usage",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.RUN_FAILED: "the run failed or was cancelled",
    ExitCode.RUN_WAITS: "the run waits for a person",
    ExitCode.DATABASE_NOT_READY: "database or schema not ready",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C (detached)",
}

_EXIT_CODES: tuple[tuple[type[TimestepError], ExitCode], ...] = (
    (RunNotFoundError, ExitCode.NOT_FOUND),
    (QueueNotFoundError, ExitCode.NOT_FOUND),
    (SessionNotFoundError, ExitCode.NOT_FOUND),
    (ScheduleNotFoundError, ExitCode.NOT_FOUND),
    (ApprovalNotFoundError, ExitCode.NOT_FOUND),
    (AmbiguousCallError, ExitCode.BAD_USAGE),
    (RunFailedError, ExitCode.RUN_FAILED),
    (RunCancelledError, ExitCode.RUN_FAILED),
    (InterruptionException, ExitCode.RUN_WAITS),
    (DatabaseNotReadyError, ExitCode.DATABASE_NOT_READY),
    (EmbeddedPostgresError, ExitCode.DATABASE_NOT_READY),
    (InvalidInputError, ExitCode.BAD_USAGE),
    (ModelNotConfiguredError, ExitCode.BAD_USAGE),
)


def exit_code_of(error: TimestepError) -> ExitCode:
    """Return the exit code with which a command ends that raised `error`."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), ExitCode.FAILED)


def show_error(message: str, hint: str | None = None) -> None:
    """Write `error: <message>`, a blank line and `hint: <hint>` to stderr."""
    lines = f"error: {message}\n"
    if hint:
        lines += f"\nhint: {hint}\n"
    sys.stderr.write(lines)


def show_exception(error: Exception, *, is_debug: bool) -> ExitCode:
    """Show an error that ended a command and return the exit code; with `is_debug` after its traceback."""
    if is_debug:
        traceback.print_exception(error)
    if isinstance(error, TimestepError):
        show_error(str(error), error.hint)
        return exit_code_of(error)
    cause = getattr(error, "orig", None) or error
    if type(cause).__module__.startswith("psycopg"):  # told by name: psycopg may not be loaded
        return _show_database_error(cause)
    text = " ".join(str(error).split())
    hint = None if is_debug else "Add --debug to see where it happened."
    show_error(f"{type(error).__name__}: {text}" if text else type(error).__name__, hint)
    return ExitCode.FAILED


def _show_database_error(error: Exception) -> ExitCode:
    text = " ".join(str(error).split())
    if type(error).__name__ in ("OperationalError", "AdminShutdown", "CannotConnectNow"):
        show_error(f"The database does not answer: {text}", "Run `timestep doctor`.")
        return ExitCode.DATABASE_NOT_READY
    show_error(f"The database refused a statement: {text}", "Run `timestep doctor`, or add --debug to see more.")
    return ExitCode.FAILED
