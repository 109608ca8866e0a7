"""`timestep demo`: a run that survives kill -9, and the proof that nothing finished was done twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from timestep.cli.demo.models import MODELS, choose_model, served
from timestep.cli.errors import ExitCode, show_error
from timestep.cli.output import coloured, emit, emit_json, json_option
from timestep.errors import TimestepError

if TYPE_CHECKING:
    from timestep.cli.demo.proof import Count, Kill
    from timestep.cli.demo.screen import Screen
    from timestep.cli.demo.side_log import LogLine, SideLog
    from timestep.client.connector import Connector

NEEDED_BODIES = 15
"""Bodies that the scripted run needs: 7 model calls, 7 tool calls, a handoff. For choosing when to kill alone."""

LOOK_SECONDS = 0.03
SETTLE_SECONDS = 0.2
"""How long Postgres gets to finish what the killed process had sent to it."""

DEFAULT_KILLS = 2


class ChildFailedError(TimestepError):
    """The process of the demo ended with an error of its own."""

    hint = "Run `timestep doctor`; with a key or an Ollama that do not work try `timestep demo --model scripted`."


@dataclass(kw_only=True)
class Drama:
    """One demo: its run, its log, and what was seen of it."""

    run_id: str
    model: str
    log: SideLog
    screen: Screen
    random: random.Random
    lines: list[LogLine]
    kills: list[Kill]

    def read_log(self) -> list[LogLine]:
        """Show the new lines of the log and return them."""
        new = self.log.read_new()
        for line in new:
            self.lines.append(line)
            self.screen.add(line)
        return new


@click.command()
@click.option("--seed", type=int, help="Kill at the same steps as the demo that printed this seed.")
@click.option("--kills", type=click.IntRange(min=0, max=9), default=DEFAULT_KILLS, show_default=True, help="How often.")
@click.option("--model", "asked", type=click.Choice(MODELS), help="Without it: openai with a key, else an ollama that "
              "runs here, else scripted. local is a real small model; it needs two packages.")  # fmt: skip
@json_option
@click.pass_context
def command(context: click.Context, seed: int | None, kills: int, asked: str | None, as_json: bool) -> None:
    """Watch a run survive kill -9.

    An agent with parallel tools, a sub-agent and a handoff runs in a process that is killed at random steps and started
    again until the run is done. The steps write a log of their own; at the end it is held against what Postgres had
    recorded at each kill. The exit code is 1 when something finished was done again.

    \b
    Example:
      timestep demo --seed 7 --kills 3
    """
    from timestep.cli.demo.proof import count_calls
    from timestep.cli.demo.screen import Screen
    from timestep.cli.demo.side_log import SideLog

    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    model, why = choose_model(asked)
    screen = Screen(is_silent=as_json)
    if not as_json:
        _introduce(seed, kills, why)
    with tempfile.TemporaryDirectory(prefix="timestep-demo-") as folder, served(model) as model:
        drama = Drama(
            run_id=f"demo-{seed}-{uuid.uuid4().hex[:6]}", model=model, log=SideLog(Path(folder) / "side-log.jsonl"),
            screen=screen, random=random.Random(seed), lines=[], kills=[],
        )  # fmt: skip
        _play(drama, kills, Path(folder))
    counts = {f"{kind}_calls": count_calls(drama.lines, drama.kills, kind=kind) for kind in ("model", "tool")}
    answer = next(line.text for line in drama.lines if line.phase == "answer")
    if as_json:
        kept = {name: asdict(count) for name, count in counts.items()}
        emit_json({"run_id": drama.run_id, "seed": seed, "kills": len(drama.kills), "output": answer, **kept})
    else:
        _conclude(drama, answer, counts)
    if any(count.finished_again for count in counts.values()):
        show_error("A finished call was made again.", f"Look at the run: timestep runs show {drama.run_id}")
        context.exit(ExitCode.FAILED)


def _introduce(seed: int, kills: int, model: str) -> None:
    from timestep.client.database import look_at_database
    from timestep.settings import current_settings

    times = {0: "not killed this time", 1: "killed (kill -9) at a random step and started again"}.get(
        kills, f"killed (kill -9) {kills} times at random steps and started again"
    )
    state = look_at_database(current_settings())
    database = "embedded Postgres" if state.kind == "embedded" else state.url
    if state.state == "stopped":
        database += ", which starts now"
    emit("Timestep demo: an agent plans a day in Lisbon, with parallel tools, a sub-agent and a handoff.")
    emit(f"Its process is {times}, until the plan is done.")
    emit("What had finished is not done again. Every step writes a log of its own; at the end it proves that.")
    emit()
    emit(f"seed      {seed}   (the same again: timestep demo --seed {seed})")
    emit(f"model     {model}")
    emit(f"database  {database}")
    emit()


def _play(drama: Drama, kills: int, folder: Path) -> None:
    """Start the run's process, kill it, and start it again, until the run has its answer."""
    from timestep.cli.connect import connect

    known: frozenset[int] = frozenset()
    with _started(drama, folder, known) as first, connect() as connector:
        is_done = _watch(drama, first, kills_left=kills, folder=folder)
        while not is_done:
            known = _after_kill(drama, connector)
            with _started(drama, folder, known) as process:
                is_done = _watch(drama, process, kills_left=kills - len(drama.kills), folder=folder)
        drama.screen.end()


@contextlib.contextmanager
def _started(drama: Drama, folder: Path, known: frozenset[int]) -> Generator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-P", "-m", "timestep.cli.demo.child", drama.run_id, str(drama.log.path), drama.model]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )  # fmt: skip
    drama.screen.started(process.pid, known)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _watch(drama: Drama, process: subprocess.Popen[bytes], *, kills_left: int, folder: Path) -> bool:
    """Show the process until it has the answer, or kill it at a step chosen by chance; return whether it has ended."""
    bodies = 0
    fatal_body, delay_seconds = _choose_kill(drama, kills_left)
    while True:
        is_running = process.poll() is None
        bodies += sum(line.phase == "start" for line in drama.read_log())
        if not is_running:
            break
        if bodies >= fatal_body > 0:
            time.sleep(delay_seconds)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            drama.read_log()
            if not any(line.phase == "answer" for line in drama.lines):
                return False
            break
        time.sleep(LOOK_SECONDS)
    if not any(line.phase == "answer" for line in drama.lines):
        output = (folder / "output.txt").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise ChildFailedError(f"The process of the demo ended with code {process.returncode}: {output[-1]}")
    return True


def _choose_kill(drama: Drama, kills_left: int) -> tuple[int, float]:
    """Return the body of this process in which it is killed, 0 for none, and how long after the body's start."""
    if kills_left <= 0:
        return 0, 0.0
    recorded = drama.kills[-1].recorded if drama.kills else frozenset[int]()
    left = max(1, NEEDED_BODIES - len(recorded))
    latest = max(1, min(left - 2, 2 * left // (kills_left + 1)))
    return drama.random.randint(1, latest), drama.random.uniform(0, 0.6)


def _after_kill(drama: Drama, connector: Connector) -> frozenset[int]:
    """Keep what Postgres has recorded of the run at this kill, and return it."""
    from timestep.cli.demo.proof import Kill
    from timestep.client.runs import list_segment_steps

    time.sleep(SETTLE_SECONDS)
    pid = drama.screen.processes[-1].pid
    recorded = frozenset(step.step_id for step in list_segment_steps(connector, drama.run_id, 1))
    drama.kills.append(Kill(pid=pid, recorded=recorded, lines=len(drama.lines)))
    drama.screen.killed(recorded)
    return recorded


def _conclude(drama: Drama, answer: str, counts: dict[str, Count]) -> None:
    from timestep.cli.demo.screen import count_table

    emit(f"answer    {answer}")
    emit()
    rows = [
        (name.replace("_", " "), count.needed, count.made, count.under_way, count.finished_again)
        for name, count in counts.items()
    ]
    for line in count_table(rows):
        emit(line)
    emit()
    if not any(count.finished_again for count in counts.values()):
        times = {0: "no kill", 1: "1 kill"}.get(len(drama.kills), f"{len(drama.kills)} kills")
        emit(coloured(f"{times}, and nothing that had finished was done again.", "green"))
    emit(f"Look at the run:  timestep runs show {drama.run_id}")
