"""Several executors of one program: a parent that starts them, ends them, and starts again those that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import timestep
from timestep.cli.errors import ExitCode
from timestep.cli.output import emit, note
from timestep.cli.signals import StopSignal
from timestep.settings import current_settings

LOOK_SECONDS = 0.2
SHORTEST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
"""Waits before a process that died is started again; they double while it does not live as long as the longest."""


class Worker:
    """One process of several, with the number `number`; started again when it dies."""

    def __init__(self, words: Sequence[str], number: int) -> None:
        self.is_ready = threading.Event()
        self._words, self._number = words, number
        self._wait_seconds = SHORTEST_WAIT_SECONDS
        self._started_at = 0.0
        self._due_at: float | None = None
        self._told: subprocess.Popen[str] | None = None
        self.start()

    @property
    def is_told(self) -> bool:
        """Whether the process that runs now has been told to end."""
        return self._told is self.process

    def start(self) -> None:
        """Start the process, in a session of its own: Ctrl-C in the terminal is for the parent."""
        environment = dict(os.environ)
        if (executor_id := current_settings().executor_id) is not None:
            environment["TIMESTEP_EXECUTOR_ID"] = f"{executor_id}-{self._number}"
        self._due_at, self._started_at = None, time.monotonic()
        self.process = subprocess.Popen(
            _command(self._words),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._relay, args=(self.process,), daemon=True).start()

    def revive(self) -> None:
        """Start the process again when it has died, after a wait."""
        code = self.process.poll()
        if code is None:
            return
        if self._due_at is None:
            lived_seconds = time.monotonic() - self._started_at
            self._wait_seconds = (
                SHORTEST_WAIT_SECONDS
                if lived_seconds > LONGEST_WAIT_SECONDS
                else min(2 * self._wait_seconds, LONGEST_WAIT_SECONDS)
            )
            self._due_at = time.monotonic() + self._wait_seconds
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            note(f"Process {self.process.pid} ended with {how}; the next one starts in {self._wait_seconds:.0f} s.")
        elif time.monotonic() >= self._due_at:
            self.start()

    def end(self) -> None:
        """Tell the process to end; told twice, it ends at once."""
        self._told = self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def _relay(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            emit(line.rstrip("\n"))
            if line.startswith("ready  "):
                self.is_ready.set()


def keep_running(modules: Sequence[str], count: int) -> int:
    """Keep `count` executors of these modules running until SIGTERM or Ctrl-C; return the exit code.

    The others start when the first one is ready. When that one does not get ready, its exit code is returned.
    """
    workers: list[Worker] = []

    def end_all() -> None:
        for worker in workers:
            worker.end()

    stop = StopSignal(told=end_all)
    words = [*modules, "--parent", str(os.getpid())]
    workers.append(Worker(words, 1))
    while not workers[0].is_ready.wait(LOOK_SECONDS) and workers[0].process.poll() is None:
        pass
    if workers[0].is_ready.is_set():
        while len(workers) < count and not stop.has_come:
            workers.append(Worker(words, len(workers) + 1))
        while not stop.wait(LOOK_SECONDS):
            for worker in workers:
                worker.revive()
    for worker in workers:
        if not worker.is_told:  # it started while the signal came
            worker.end()
    codes = [worker.process.wait() for worker in workers]
    return max(code if code >= 0 else ExitCode.FAILED for code in codes)


def _command(words: Sequence[str]) -> list[str]:
    # A file of the current folder must not take the place of a library; unless Timestep itself is imported from there.
    is_here = Path(timestep.__path__[0]).parent == Path.cwd()
    return [sys.executable, *([] if is_here else ["-P"]), "-m", "timestep", "worker", *words]
