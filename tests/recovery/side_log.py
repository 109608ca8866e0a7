"""The append-only side log that the bodies write themselves, and the points at which a process can be stopped.

One line is one write to a file opened with O_APPEND: what a killed process has written stays, whole. The log is also
how a child tells that it has come to the point where it is to be stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "RECOVERY_FOLDER"
STOPS_VARIABLE = "RECOVERY_STOPS"
POLL_SECONDS = 0.01


def folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def write(what: str, run: str, **fields: Any) -> None:
    """Append one line."""
    line = json.dumps({"what": what, "run": run, "pid": os.getpid(), **fields}) + "\n"
    target = os.open(folder() / "side.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        assert os.write(target, line.encode()) == len(line.encode())
    finally:
        os.close(target)


def is_stop(run: str, point: str) -> bool:
    """Whether this process is to stop at this point; tells in the log that it is there."""
    if json.loads(os.environ.get(STOPS_VARIABLE, "{}")).get(run) != point:
        return False
    write("reached", run, point=point)
    return True


def is_released(run: str = "") -> bool:
    """Whether what is held goes on: in every process, in this one, or in this run."""
    return any((folder() / name).exists() for name in ("release", f"release_{os.getpid()}", f"release_{run}"))


async def stop_at(run: str, point: str) -> None:
    """Wait at `point`, if this is where the process is to stop, until it is killed or released."""
    if is_stop(run, point):
        while not is_released(run):
            await asyncio.sleep(POLL_SECONDS)


def stop_thread_at(run: str, point: str) -> None:
    """As `stop_at`, in a thread."""
    if is_stop(run, point):
        while not is_released(run):
            time.sleep(POLL_SECONDS)
