"""How many runs that wait for their models one machine carries: turns per second against the ideal, memory per run.

    python benchmarks/many_runs.py [--runs 1000] [--turns 12] [--seconds 10] [--processes 1,2] [--json]

On an embedded Postgres of its own, `timestep worker --processes N` executes `--runs` runs at once. A model takes
`--seconds` for each turn and asks for one tool, so that at the ideal `runs / seconds` turns end each second. What is
reached is the sum of the rates of the runs, each from the end of its third turn to the end of its last but one: all are
under way then. They begin at once, in a crowd; the figure with the first turns is printed beside it. Turns in a window
of time would not do: at the ideal the crowd would stay one.

Floor: 0.9 of the ideal with two processes. Exit code 1 when it is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

import psutil
from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import assistant_message, function_call
from place import Place, folder, place_for

import timestep

FLOOR = 0.9
WARM_TURNS = 3


class Slow(Model):
    """Takes its time and asks for one call a turn; keeps no state."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        done = sum(1 for item in items if item.get("type") == "function_call_output")
        turns, seconds, run = str(items[0]["content"]).split()
        await asyncio.sleep(float(seconds))
        note(run, done + 1)
        output: list[Any] = [assistant_message("done")]
        if done + 1 < int(turns):
            output = [function_call("act", {"number": done}, call_id=f"call_{done}")]
        return ModelResponse(output=output, usage=Usage(requests=1, input_tokens=10, output_tokens=5), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("the benchmark does not stream")


@function_tool
async def act(number: int) -> str:
    """Do something that takes no time."""
    return f"did {number}"


agent = Agent(name="many", model=Slow(), tools=[act])


def note(run: str, turn: int) -> None:
    """Write down that a turn of this number ends now."""
    with (folder() / f"turns-{os.getpid()}.txt").open("a") as lines:
        lines.write(f"{run} {turn} {time.time()}\n")


def turns_ended() -> dict[int, dict[str, float]]:
    """Return by the number of a turn when it ended first in each run."""
    found: dict[int, dict[str, float]] = {}
    for path in folder().glob("turns-*.txt"):
        for run, turn, at in map(str.split, path.read_text().splitlines()):
            runs = found.setdefault(int(turn), {})
            runs[run] = min(float(at), runs.get(run, float(at)))
    return found


@contextlib.contextmanager
def workers(count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `timestep worker --processes count` until the block is left."""
    command = [sys.executable, "-m", "timestep", "worker", __file__, "--processes", str(count)]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield parent
    finally:
        parent.send_signal(signal.SIGTERM)
        parent.wait()


def memory_bytes(parent: subprocess.Popen[bytes]) -> int:
    """Return the resident memory of a process and its children."""
    process = psutil.Process(parent.pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


def wait_for(condition: Any) -> None:
    while not condition():
        time.sleep(0.5)


def measure(place: Place, processes: int, runs: int, turns: int, seconds: float) -> dict[str, float]:
    """Return turns per second, their part of the ideal, and memory per run."""
    for path in folder().glob("turns-*.txt"):
        path.unlink()
    queue = f"many-{processes}"
    alive = "select count(*) from timestep.executors where free_since is null and position('many' in agents::text) > 0"
    with workers(processes) as parent:
        wait_for(lambda: place.rows(alive)[0][0] >= processes)
        before = memory_bytes(parent)
        # Without the limit of each process the one that looks first takes them all.
        timestep.create_queue(queue, worker_concurrency=-(-runs // processes))
        timestep.queue_many(
            (
                {"input_items": f"{turns} {seconds} {number}", "workflow_id": f"{processes}-{number}"}
                for number in range(runs)
            ),
            "many",
            queue_name=queue,
            max_turns=turns + 1,
        )
        wait_for(lambda: len(turns_ended().get(1, ())) == runs)
        after = memory_bytes(parent)
        wait_for(lambda: place.rows("select count(*) from timestep.runs where finished_at is null") == [(0,)])
    ended = turns_ended()
    last = ended[turns - 1]

    def per_second(first: int) -> float:
        return sum((turns - 1 - first) / (at - ended[first][run]) for run, at in last.items())

    share = max(len(path.read_text().splitlines()) for path in folder().glob("turns-*.txt")) / (runs * turns)
    assert min(ended[turns].values()) > max(ended[WARM_TURNS].values()), "the runs began too slowly: more turns"
    slowest = max((at - ended[WARM_TURNS][run]) / (turns - 1 - WARM_TURNS) for run, at in last.items())
    return {
        "slowest_turn_seconds": round(slowest, 1),
        "turns_per_second": round(per_second(WARM_TURNS), 1),
        "largest_share": round(share, 2),
        "of_ideal": round(per_second(WARM_TURNS) / (runs / seconds), 3),
        "of_ideal_with_the_beginning": round(per_second(1) / (runs / seconds), 3),
        "memory_bytes_per_run": round((after - before) / runs),
    }


def main(runs: int, turns: int, seconds: float, processes: list[int]) -> dict[str, dict[str, float]]:
    """Measure everything and return the report by the number of processes."""
    with place_for(Place) as place:
        timestep.register_agents(agent)
        timestep.configure_dbos()
        timestep.ensure_dbos_launched(queues=())
        try:
            return {str(count): measure(place, count, runs, turns, seconds) for count in processes}
        finally:
            timestep.cleanup_dbos()


def show(report: dict[str, dict[str, float]], runs: int, seconds: float) -> None:
    """Print the report for people."""
    print(f"{runs} runs at once, a model that takes {seconds} s a turn; ideal {runs / seconds:.0f} turns a second")
    for count, found in report.items():
        speed = f"{found['turns_per_second']:8.1f} turns a second  {found['of_ideal']:6.3f} of the ideal"
        memory = f"{found['memory_bytes_per_run']:10,.0f} bytes a run"
        print(f"  {count} processes  {speed}  {memory}  slowest {found['slowest_turn_seconds']} s a turn")
        beginning = f"{found['of_ideal_with_the_beginning']:.3f} with the beginning"
        print(f"               {beginning}; the busiest process had {found['largest_share']:.0%} of the turns")
    print(f"  floor {FLOOR} with 2 processes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How many runs that wait for their models one machine carries.")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = main(options.runs, options.turns, options.seconds, [int(each) for each in options.processes.split(",")])
    if options.json:
        print(json.dumps(found))
    else:
        show(found, options.runs, options.seconds)
    raise SystemExit(0 if found.get("2", {"of_ideal": 1})["of_ideal"] >= FLOOR else 1)
