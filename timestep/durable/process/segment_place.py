"""Where segments execute in this process: at its home, and where they go on when that ends.

DBOS executes what it takes from a queue in a loop of its own. There this module hands a segment over to the home. An
event loop that ends leaves its segments in the middle; the executor hears of them here, and gives them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from dbos import DBOS

from timestep import event_loops, home_loop
from timestep.durable.seams import dbos_sdk
from timestep.home_loop import Loop, LoopEnded
from timestep.ids import run_of_segment

P = ParamSpec("P")
T = TypeVar("T")

WAIT_SECONDS = 0.05

MOST_TIMES_LEFT = 2
"""After so many homes that ended under it a segment executes in the engine's own loop, so that it comes to an end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Execution:
    """One execution of a segment in a loop of this process; `owner` is the token with which it owns its workflow."""

    workflow_id: str
    owner: str | None
    loop: Loop
    task: asyncio.Task[Any] | None


_lock = threading.Lock()
_executing: set[Execution] = set()
_cancelled: set[Execution] = set()
"""Executions whose task was cancelled: left in the middle, if their loop ends now."""

_left: set[Execution] = set()
_times_left: Counter[str] = Counter()
_told: Callable[[], None] | None = None


def at_home(workflow: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Execute a workflow in the home of this process, whichever loop DBOS starts it in."""

    @functools.wraps(workflow)
    async def placed(*args: P.args, **kwargs: P.kwargs) -> T:
        workflow_id = DBOS.workflow_id or ""

        async def execute() -> T:
            return await _noted(workflow_id, workflow(*args, **kwargs))

        while True:
            place = await _place_of(workflow_id)
            if place is None or place is asyncio.get_running_loop():
                return await execute()
            try:
                return await home_loop.run_in(place, execute)
            except LoopEnded as ended:
                if ended.has_begun:
                    raise asyncio.CancelledError from None  # DBOS records nothing then

    return placed


def begin_to_give_back(told: Callable[[], None]) -> None:
    """Call `told`, in any thread, when there are segments to give back; `take_left` returns them."""
    global _told
    if _told is None:
        event_loops.on_end(leave)
    _told = told


def leave(loop: Loop) -> None:
    """Note that the segments in a loop do not go on there: it has ended, is paused or blocked."""
    home_loop.home()
    with _lock:
        found = {each for each in _executing | _cancelled if each.loop is loop}
        _executing.difference_update(found)
        _cancelled.difference_update(found)
        _left.update(found)
        _times_left.update(each.workflow_id for each in found)
    for each in found:
        home_loop.note_end_under(run_of_segment(each.workflow_id)[0], loop)
        _end_task(each)
    if found and _told is not None:
        _told()


def take_left() -> list[Execution]:
    """Return the executions that were left, each once."""
    with _lock:
        found = list(_left)
        _left.clear()
    return found


def put_left(executions: Iterable[Execution]) -> None:
    """Return executions that could not be given back; they are taken again."""
    with _lock:
        _left.update(executions)


async def _noted(workflow_id: str, execution: Awaitable[T]) -> T:
    noted = Execution(
        workflow_id=workflow_id,
        owner=dbos_sdk.owner_token(),
        loop=asyncio.get_running_loop(),
        task=asyncio.current_task(),
    )
    with _lock:
        _cancelled.difference_update([each for each in _cancelled if each.workflow_id == workflow_id])
        _executing.add(noted)
    try:
        result = await execution
    except asyncio.CancelledError:
        with _lock:
            if noted in _executing:
                _cancelled.add(noted)
        raise
    finally:
        with _lock:
            _executing.discard(noted)
    _times_left.pop(workflow_id, None)
    return result


async def _place_of(workflow_id: str) -> Loop | None:
    if _times_left[workflow_id] >= MOST_TIMES_LEFT:
        return None
    run_id = run_of_segment(workflow_id)[0]
    while (place := home_loop.place_of(run_id)) is None and home_loop.is_between():
        await asyncio.sleep(WAIT_SECONDS)
    return place


def _end_task(execution: Execution) -> None:
    """End the task of an execution that was left, when its loop comes to it; one of a closed loop is taken apart."""
    if execution.task is None or execution.task.done():
        return
    try:
        execution.loop.call_soon_threadsafe(execution.task.cancel)
    except RuntimeError:
        with contextlib.suppress(Exception):  # code of the execution that would await something
            execution.task.get_coro().close()  # pyright: ignore[reportOptionalMemberAccess]
