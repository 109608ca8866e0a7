"""Runs that start inside a tool or a workflow: the ids that they get, and waiting for them.

A tool whose process dies is repeated. So the runs that it starts have ids made of its idempotency key and a number:
the repeat finds those of the first attempt, and waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from dbos import error as dbos_error

from timestep.durable.process.gate import gate
from timestep.durable.seams import dbos_sdk
from timestep.errors import RunCancelledError, UnsupportedError
from timestep.ids import MAX_ID_CHARACTERS, new_run_id, run_of_segment
from timestep.records import ToolCall

T = TypeVar("T")


@dataclass(kw_only=True)
class _Parent:
    """The tool call that starts runs, and how many it has started in this attempt."""

    call: ToolCall
    started: int = 0


_parent: contextvars.ContextVar[_Parent | None] = contextvars.ContextVar("timestep_parent", default=None)


@contextlib.contextmanager
def parent_of_runs(call: ToolCall) -> Generator[None]:
    """Make a tool call the parent of the runs that start inside."""
    token = _parent.set(_Parent(call=call))
    try:
        yield
    finally:
        _parent.reset(token)


def parent_run_id() -> str | None:
    """Return the run, or the workflow of a program's own, whose child a run is that starts here; None for none."""
    parent = _parent.get()
    if parent is not None:
        return parent.call.run_id
    context = dbos_sdk.current_context()
    return run_of_segment(context.workflow_id)[0] if context is not None and context.workflow_id else None


def next_run_id() -> str:
    """Return the id of a run that starts here without one: the same on every attempt, where there are attempts.

    Raises:
        UnsupportedError: this is the body of a step that is no tool.
    """
    parent = _parent.get()
    if parent is not None:
        parent.started += 1
        return _short(f"{parent.call.idempotency_key}:{parent.started}")
    if dbos_sdk.is_in_step():
        raise UnsupportedError(
            "A durable run that starts inside a step needs an id: a repeat of the step would start another one.",
            hint="Pass `workflow_id=`, made of what the step is given.",
        )
    return _short(dbos_sdk.next_child_id()) if dbos_sdk.is_in_workflow() else new_run_id()


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns. Inside a step it is no part of it: runs may start, and a drain does not wait."""
    if not dbos_sdk.is_in_step():
        return await work
    with waiting():
        return await asyncio.create_task(work, context=contextvars.Context())


@contextlib.contextmanager
def waiting() -> Generator[None]:
    """Let a drain not wait for a tool that does nothing but wait for runs: it is repeated elsewhere and waits there."""
    with ending_together(), gate.outside() if _parent.get() is not None else contextlib.nullcontext():
        yield


def with_parent(error: RunCancelledError, parent: str | None) -> RunCancelledError:
    """Return the error of a run that was cancelled with the run `parent`, for `ending_together`."""
    error.__dict__["_cancelled_parent"] = parent
    return error


@contextlib.contextmanager
def ending_together() -> Generator[None]:
    """Raise the cancellation of this run itself when the run inside was cancelled with it.

    Both are cancelled in one transaction, but a tool may see the end of its child before that of its own run. An error
    would be recorded as its result, and the model would read it when the two are resumed.
    """
    try:
        yield
    except RunCancelledError as error:
        parent = error.__dict__.get("_cancelled_parent")
        if parent is None or parent != parent_run_id():
            raise
        text = f"The run {parent!r} was cancelled with the run {error.run_id!r}, which it waits for."
        raise dbos_error.DBOSWorkflowCancelledError(text) from None


def _short(run_id: str) -> str:
    if len(run_id) <= MAX_ID_CHARACTERS:
        return run_id
    digest = hashlib.sha256(run_id.encode()).hexdigest()
    return f"{run_id[: MAX_ID_CHARACTERS - len(digest) - 1]}#{digest}"
