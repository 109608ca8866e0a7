"""What a queue costs: the time from enqueueing to the first step, runs per second, and the time to a takeover.

    python benchmarks/operating.py [--runs 300] [--samples 40] [--intervals 1,0.25,0.05] [--kills 5] [--json]

On an embedded Postgres of its own, one executor in a process of its own, on a model that answers at once:

- for each polling interval of a queue: enqueue to first step, p50 and p99, and the statements a second that an idle
  executor makes for this queue alone;
- `--runs` runs of two turns and one tool through a queue, against bare DBOS workflows with the same three steps through
  a queue with the same settings, in turns: runs per second and their ratio;
- `--kills` times: kill -9 of the executor in the middle of a tool, to the moment when another one begins it again.

Floor: at most 60 statements a second of an idle executor with its own two queues. Exit code 1 when it is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import assistant_message, function_call
from dbos import DBOS, SetWorkflowID
from place import Place, folder, place_for, quantiles

import timestep

FLOOR_STATEMENTS = 60
STEPS = 3
THROUGHPUT_QUEUES = ("runs", "workflows")


class Instant(Model):
    """Answers at once: says `done`, after one call when its input is the name of a tool; keeps no state."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        asked, is_first = str(items[0]["content"]), len(items) == 1
        if is_first and asked.startswith("begin "):
            note(asked.removeprefix("begin "))
        calls = is_first and asked in ("act", "hold")
        output: list[Any] = [function_call(asked, {}, call_id="call")] if calls else [assistant_message("done")]
        return ModelResponse(output=output, usage=Usage(requests=1, input_tokens=10, output_tokens=5), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("the benchmark does not stream")


@function_tool
async def act() -> str:
    """Do something that takes no time."""
    return "did it"


@function_tool
async def hold() -> str:
    """Note when it begins, and last until its process is killed; the second time until the next tick."""
    run_id = timestep.current_tool_call().run_id
    note(run_id)
    if timestep.current_tool_call().attempt == 1:
        await asyncio.sleep(600)
    return "held"


agent = Agent(name="clerk", model=Instant(), tools=[act, hold])


async def empty() -> dict[str, Any]:
    return {"ok": "value"}


@DBOS.workflow(name="bare_steps")
async def bare_steps() -> str:
    """As many steps as a run has."""
    for number in range(STEPS):
        await DBOS.run_step_async({"name": f"step_{number}"}, empty)
    return "done"


def note(name: str) -> None:
    """Write down that something begins now."""
    with (folder() / "began.txt").open("a") as lines:
        lines.write(f"{name} {time.time()}\n")


def began(name: str, *, times: int = 1) -> float:
    """Wait until something has begun for the n-th time, and return when."""
    path = folder() / "began.txt"
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        found = [float(line.split()[1]) for line in lines if line.split()[0] == name]
        if len(found) >= times:
            return found[times - 1]
        time.sleep(0.002)


def executor() -> None:
    """Execute runs until the process is killed."""
    timestep.register_agents(agent)
    timestep.configure_dbos()
    timestep.ensure_dbos_launched()
    (folder() / f"ready-{os.getpid()}").touch()
    signal.pause()


class Worker:
    """An executor in a process of its own, ready."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, "--executor"], stdout=subprocess.DEVNULL)
        ready = folder() / f"ready-{self.process.pid}"
        while not ready.exists():
            assert self.process.poll() is None, "the executor has ended"
            time.sleep(0.02)

    def kill(self) -> float:
        """Kill it and return when."""
        at = time.time()
        self.process.kill()
        self.process.wait()
        return at


def measure_latency(interval: float, samples: int) -> dict[str, float]:
    """Return the milliseconds from the call that enqueues to the first step."""
    found: list[float] = []
    for number in range(samples):
        name = f"{interval}-{number}"
        at = time.time()
        timestep.queue_agent_workflow("clerk", f"begin {name}", workflow_id=name, queue_name=queue_of(interval))
        found.append((began(name) - at) * 1000)
        time.sleep(interval * (number * 0.618 % 1))  # so that the calls fall anywhere between two polls
    return quantiles(found)


def queue_of(interval: float) -> str:
    return f"poll-{int(interval * 1000)}-ms"


def measure_throughput(place: Place, runs: int, rounds: int = 3) -> dict[str, float]:
    """Return how many runs and how many bare workflows end per second; they take turns."""
    speeds: dict[str, list[float]] = {name: [] for name in THROUGHPUT_QUEUES}
    for attempt in range(rounds):
        for name in THROUGHPUT_QUEUES:
            ids = [f"{name}-{attempt}-{number}" for number in range(runs)]
            for workflow_id in ids:
                if name == "runs":
                    timestep.queue_agent_workflow("clerk", "act", workflow_id=workflow_id, queue_name=name)
                else:
                    with SetWorkflowID(workflow_id):
                        DBOS.enqueue_workflow(name, bare_steps)
            query = """select count(*), min(started_at_epoch_ms), max(completed_at) from dbos.workflow_status
                       where workflow_uuid like %s and status = 'SUCCESS'"""
            while (row := place.rows(query, f"{name}-{attempt}-%"))[0][0] < runs:
                time.sleep(0.1)
            speeds[name].append(runs / (row[0][2] - row[0][1]) * 1000)
    per_second = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "runs_per_second": round(per_second["runs"], 1),
        "workflows_per_second": round(per_second["workflows"], 1),
        "ratio": round(per_second["runs"] / per_second["workflows"], 3),
    }


def measure_takeover(worker: Worker, kills: int) -> dict[str, float]:
    """Kill the executor in the middle of a tool, again and again, while another one lives."""
    found: list[float] = []
    for number in range(kills):
        name = f"kill-{number}"
        timestep.queue_agent_workflow("clerk", "hold", workflow_id=name, queue_name=queue_of(0.05))
        began(name)
        next_worker = Worker()
        at = worker.kill()
        found.append((began(name, times=2) - at) * 1000)
        worker = next_worker
    worker.kill()
    return quantiles(found)


def main(runs: int, samples: int, intervals: list[float], kills: int) -> dict[str, Any]:
    """Measure everything and return the report."""
    with place_for(Place) as place:
        timestep.register_agents(agent)
        timestep.configure_dbos()
        timestep.ensure_dbos_launched(queues=())
        worker = Worker()
        both = place.idle_statements()
        worker.kill()
        here = place.idle_statements()
        worker = Worker()
        queues: dict[str, dict[str, float]] = {}
        before = both
        for interval in intervals:
            DBOS.register_queue(queue_of(interval), polling_interval_sec=interval)
            time.sleep(2)  # until the executor has seen it
            after = place.idle_statements()
            queues[str(interval)] = {"idle_statements": round(after - before, 1), **measure_latency(interval, samples)}
            before = after
        for name in THROUGHPUT_QUEUES:
            DBOS.register_queue(name, polling_interval_sec=0.1)
        throughput = measure_throughput(place, runs)
        if 0.05 not in intervals:
            DBOS.register_queue(queue_of(0.05), polling_interval_sec=0.05)
        report = {
            "idle_statements_per_second": round(both - here, 1),
            "queues": queues,
            "throughput": throughput,
            "takeover_ms": measure_takeover(worker, kills),
        }
        timestep.cleanup_dbos()
        return report


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    idle = report["idle_statements_per_second"]
    print(f"idle executor                {idle:8.1f} statements a second   floor {FLOOR_STATEMENTS}")
    for interval, found in report["queues"].items():
        times = f"{found['p50']:8.1f} ms p50  {found['p99']:8.1f} ms p99"
        print(
            f"enqueue to step, poll {interval:>5} s {times}   {found['idle_statements']:6.1f} statements a second idle"
        )
    speed = report["throughput"]
    print(f"through a queue              {speed['runs_per_second']:8.1f} runs a second")
    print(f"bare workflows               {speed['workflows_per_second']:8.1f} a second   ratio {speed['ratio']}")
    print(f"kill -9 to the next attempt  {report['takeover_ms']['p50']:8.1f} ms p50")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a queue costs.")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--intervals", default="1,0.25,0.05")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--executor", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("dbos").setLevel(logging.ERROR)
    if options.executor:
        executor()
    found = main(options.runs, options.samples, [float(each) for each in options.intervals.split(",")], options.kills)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    raise SystemExit(0 if found["idle_statements_per_second"] <= FLOOR_STATEMENTS else 1)
