"""The one place that catches BaseException: around code of users, so that all it raises by itself is an Exception.

asyncio ends the event loop of a task that raises SystemExit or KeyboardInterrupt, and never wakes who awaits a thread
that raises StopIteration. A tool that calls `sys.exit()` would take all runs of its process along.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from dbos import error as dbos_error

P = ParamSpec("P")
T = TypeVar("T")


class EngineSignal(BaseException):
    """What the engine raises through code of users; nothing of that code catches it."""


async def contained(code: Callable[[], Awaitable[T]]) -> T:
    """Await what `code` returns; what it raises that is no Exception becomes a RuntimeError with that as its cause.

    A cancellation that was requested, a KeyboardInterrupt of a signal, the end of the coroutine and what the engine
    itself raises pass through.
    """
    task = asyncio.current_task()
    try:
        return await code()
    except Exception:
        raise
    except BaseException as error:
        if _is_meant(error, task):
            raise
        raise _failure(error).with_traceback(error.__traceback__) from error


async def contained_stream(make: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
    """Yield what the iterator of `make` yields; what it raises is treated as by `contained`."""
    stream = make()
    try:
        while True:
            try:
                item = await contained(stream.__anext__)
            except StopAsyncIteration:
                return
            yield item
    finally:
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()


def contained_in_thread(code: Callable[P, T]) -> Callable[P, T]:
    """Return `code` for a thread: what it raises that no awaiting task could take becomes a RuntimeError."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return code(*args, **kwargs)
        except BaseException as error:
            if _is_of_engine(error) or (isinstance(error, Exception) and not isinstance(error, StopIteration)):
                raise
            raise _failure(error).with_traceback(error.__traceback__) from error

    return call


def is_contained(error: Exception) -> bool:
    """Whether code of users has raised what is no Exception, and `error` stands for it."""
    return (
        isinstance(error, RuntimeError)
        and isinstance(error.__cause__, BaseException)
        and (not isinstance(error.__cause__, Exception))
    )


def _failure(error: BaseException) -> RuntimeError:
    text = str(error)
    return RuntimeError(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _is_meant(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    match error:
        case _ if _is_of_engine(error):
            return True
        case asyncio.CancelledError():
            return task is None or task.cancelling() > 0
        case GeneratorExit():  # somebody else closes a coroutine; its own task raised it
            return task is None or _current_task() is not task
        case KeyboardInterrupt():  # signals arrive in the main thread alone
            return threading.current_thread() is threading.main_thread()
        case BaseExceptionGroup():
            return any(_is_meant(each, task) for each in error.exceptions if not isinstance(each, Exception))
        case _:
            return False


def _is_of_engine(error: BaseException) -> bool:
    return isinstance(
        error, (EngineSignal, dbos_error.DBOSWorkflowCancelledError, dbos_error.DBOSWorkflowConflictIDError)
    )


def _current_task() -> asyncio.Task[Any] | None:
    with suppress(RuntimeError):
        return asyncio.current_task()
    return None
