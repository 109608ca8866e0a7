"""Call blocking code in a thread."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def run_in_thread(function: Callable[[], T]) -> T:
    """Return `function()`, run where no event loop runs: DBOS refuses some calls under one. Blocks.

    Without a loop that is here; when the interpreter shuts down, no other thread can be started.
    """
    if running_loop() is None:
        return contextvars.Context().run(function)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(contextvars.Context().run, function).result()
