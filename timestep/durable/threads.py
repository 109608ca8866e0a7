"""Threads for blocking tools, apart from those of the checkpoints.

DBOS makes its own small pool the default executor of each event loop, and the SDK runs synchronous tools in the
default executor: a few slow tools would stop every checkpoint of the process. `separate_tool_threads` puts an
executor in front that sends work of tool bodies to a pool of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_in_tool_body: contextvars.ContextVar[bool] = contextvars.ContextVar("timestep_in_tool_body", default=False)
_tool_pool: ThreadPoolExecutor | None = None


class _SortingExecutor(ThreadPoolExecutor):
    """Default executor of a loop: work of tool bodies goes to `tools`, everything else to `others`."""

    def __init__(self, tools: ThreadPoolExecutor, others: ThreadPoolExecutor) -> None:
        super().__init__(max_workers=1)  # submit() is replaced: this pool never starts a thread
        self.tools, self.others = tools, others

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return (self.tools if _in_tool_body.get() else self.others).submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the two pools belong to others, and asyncio.run() shuts down what it finds."""


@contextlib.contextmanager
def tool_body() -> Generator[None]:
    """Mark the code inside as a tool's body."""
    token = _in_tool_body.set(True)
    try:
        yield
    finally:
        _in_tool_body.reset(token)


def separate_tool_threads(checkpoints: ThreadPoolExecutor, *, tool_threads: int) -> None:
    """Give blocking tools of the running loop up to `tool_threads` threads of their own; may be called often."""
    global _tool_pool
    loop = asyncio.get_running_loop()
    if _tool_pool is None:
        _tool_pool = ThreadPoolExecutor(max_workers=tool_threads, thread_name_prefix="timestep-tool-")
    present: Any = getattr(loop, "_default_executor", None)
    if not isinstance(present, _SortingExecutor) or present.others is not checkpoints:
        loop.set_default_executor(_SortingExecutor(_tool_pool, checkpoints))


def run_in_thread(function: Callable[[], T]) -> T:
    """Return `function()`, run where no event loop runs: DBOS refuses some calls under one. Blocks.

    Without a loop that is here; when the interpreter shuts down, no other thread can be started.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return contextvars.Context().run(function)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(contextvars.Context().run, function).result()
