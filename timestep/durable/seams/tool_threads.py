"""Threads for blocking tools, apart from those of the checkpoints.

DBOS makes its own small pool the default executor of each event loop, and the SDK runs synchronous tools in the
default executor: a few slow tools would stop every checkpoint of the process. `SortingExecutor` takes the place of
DBOS's executor and sends work of tool bodies to a pool of their own.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from timestep.durable.seams.user_code import contained_in_thread

T = TypeVar("T")

_in_tool_body: contextvars.ContextVar[bool] = contextvars.ContextVar("timestep_in_tool_body", default=False)


class SortingExecutor(ThreadPoolExecutor):
    """Default executor of a loop: work of tool bodies gets up to `tool_threads` threads of its own."""

    def __init__(self, executor: ThreadPoolExecutor, *, tool_threads: int) -> None:
        super().__init__(max_workers=tool_threads, thread_name_prefix="timestep-tool-")
        self.executor = executor
        """Where everything else goes; DBOS compares it with its own."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if _in_tool_body.get():
            return super().submit(contained_in_thread(fn), *args, **kwargs)
        with contextlib.suppress(RuntimeError):  # the engine has stopped, and this is still the executor of the loop
            return self.executor.submit(fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: asyncio.run() shuts down the executor that it finds, and this one serves every loop."""


@contextlib.contextmanager
def tool_body() -> Generator[None]:
    """Mark the code inside as a tool's body."""
    token = _in_tool_body.set(True)
    try:
        yield
    finally:
        _in_tool_body.reset(token)
