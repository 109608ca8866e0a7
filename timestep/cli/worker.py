"""`timestep worker`: an executor."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import click

from timestep.cli.output import emit, note
from timestep.errors import ExecutorFencedError

LOOK_SECONDS = 0.5
"""How often the executor is looked at: whether another one has taken over."""


@click.command()
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
def command(modules: tuple[str, ...]) -> None:
    """Execute runs with the agents of modules until SIGTERM or Ctrl-C.

    A MODULE is a name such as my_app.agents or a file. Every agents.Agent at its top level is registered, or what the
    module registers itself. SIGTERM and Ctrl-C let the steps that run finish, then hand the rest over; a
    second one ends at once.

    \b
    Example:
      timestep worker my_app.agents
    """
    from timestep.cli.modules import register_modules
    from timestep.cli.quiet import quieten
    from timestep.runtime import cleanup_dbos, drain, ensure_dbos_launched

    stopping = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    register_modules(modules)
    quieten()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    ensure_dbos_launched()
    emit(_ready_line())
    _wait(stopping)
    note("Stopping: the steps that run may finish, no new one begins.")
    if not drain():
        note("Some steps did not finish in time; they are done again elsewhere.")
    cleanup_dbos()


def _wait(stopping: threading.Event) -> None:
    from timestep.durable.gate import gate
    from timestep.runtime import cleanup_dbos

    while not stopping.wait(LOOK_SECONDS):
        if gate.is_fenced:
            cleanup_dbos()
            raise ExecutorFencedError


def _ready_line() -> str:
    from dbos import DBOS

    from timestep.durable.engine import engine
    from timestep.durable.registry import registered_names

    me = engine()
    agents = ", ".join(registered_names())
    queues = ", ".join(sorted(queue.name for queue in DBOS.list_queues()))
    return f"ready  executor {me.executor_id}  version {me.application_version}  agents {agents}  queues {queues}"
