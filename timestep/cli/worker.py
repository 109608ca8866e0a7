"""`timestep worker`: an executor."""

from __future__ import annotations

import gc
import os

import click

from timestep.cli.output import emit, note
from timestep.cli.signals import StopSignal
from timestep.errors import ExecutorFencedError

LOOK_SECONDS = 0.5
"""How often the executor is looked at: whether another one has taken over."""


MOST_PROCESSES = 256

GC_THRESHOLDS = (5_000, 20, 20)
"""Objects made and not freed before the youngest are looked through; and every how many of those the older ones."""


@click.command()
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "--processes",
    type=click.IntRange(min=1, max=MOST_PROCESSES),
    default=1,
    show_default=True,
    metavar="N",
    help="Executors to run, each a process of its own; one that dies is started again.",
)
@click.option("--parent", type=int, hidden=True)
@click.pass_context
def command(context: click.Context, modules: tuple[str, ...], processes: int, parent: int | None) -> None:
    """Execute runs with the agents of modules until SIGTERM or Ctrl-C.

    A MODULE is a name such as my_app.agents or a file. Every agents.Agent at its top level is registered, or what the
    module registers itself. SIGTERM and Ctrl-C let the steps that run finish, then hand the rest over; a
    second one ends at once. With --processes the parent tells all of its processes.

    \b
    Examples:
      timestep worker my_app.agents
      timestep worker my_app.agents --processes 4
    """
    if processes > 1:
        from timestep.cli.processes import keep_running

        context.exit(keep_running(modules, processes))
    from timestep.cli.find_agents import register_modules
    from timestep.cli.quiet import quieten
    from timestep.runtime import cleanup_dbos, drain, ensure_dbos_launched

    register_modules(modules)
    quieten()
    stop = StopSignal()
    ensure_dbos_launched()
    _calm_garbage_collector()
    emit(_ready_line())
    _wait(stop, parent=parent)
    note("Stopping: the steps that run may finish, no new one begins.")
    if not drain():
        note("Some steps did not finish in time; they are done again elsewhere.")
    cleanup_dbos()


def _wait(stop: StopSignal, *, parent: int | None) -> None:
    """Return when a signal came, or when the parent that started this process has died."""
    from timestep.durable.process.gate import gate
    from timestep.runtime import cleanup_dbos

    while not stop.wait(LOOK_SECONDS):
        if gate.is_fenced:
            error = ExecutorFencedError(gate.why_fenced)
            cleanup_dbos()
            raise error
        if parent is not None and os.getppid() != parent:
            return


def _calm_garbage_collector() -> None:
    """Look through what lives long less often: with hundreds of runs under way that stops them all for half a second.

    What is loaded by now stays for good, and is not looked through again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _ready_line() -> str:
    from dbos import DBOS

    from timestep.durable.process.engine import engine
    from timestep.durable.process.registered_agents import registered_names

    me = engine()
    agents = ", ".join(registered_names())
    queues = ", ".join(sorted(queue.name for queue in DBOS.list_queues()))
    return f"ready  executor {me.executor_id}  version {me.application_version}  agents {agents}  queues {queues}"
