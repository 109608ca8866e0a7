"""What durability costs: one agent run as plain SDK, as bare DBOS steps, and as Timestep, side by side.

    python benchmarks/overhead.py [--rounds 40] [--concurrent 200] [--json]

A 6-turn, 5-tool agent on a model that answers at once, so that nothing but overhead is measured. The variants are
interleaved in one process on one Postgres (the configured one, else the embedded one); medians are printed:

(a) plain       `Runner.run`, nothing stored
(b) steps       a DBOS workflow with as many empty steps as the run has model turns and tool calls
(c) timestep    `run_agent_workflow`
(d) dbos        `dbos-openai-agents` with its tools as steps, when it is installed

Floors: (c) - (a) is at most 1.25 x (b); (c) is faster than (d); `import timestep` takes at most 50 ms and `timestep
--help` at most 150 ms over bare Python. Exit code 1 when one is broken. Statements and commits are counted on the
connections of DBOS and of the store.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import json
import logging
import os
import pickle
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

import sqlalchemy as sa
from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.testing import assistant_message, function_call
from dbos import DBOS

import timestep
from timestep.client.serializer import JournalSerializer

TURNS = 6
TOOL_CALLS = 5
FLOOR = 1.25
START_FLOORS_MS = {"import timestep": 50, "timestep --help": 150}


class InstantModel(Model):
    """Answers at once: one tool call a turn, then text. Decides from its input, so that it keeps no state."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        done = 0 if isinstance(input, str) else sum(1 for item in input if item.get("type") == "function_call_output")
        if done < TOOL_CALLS:
            output: list[Any] = [function_call("look_up", {"key": f"k{done}"}, call_id=f"call_{done}")]
        else:
            output = [assistant_message("done")]
        return ModelResponse(output=output, usage=Usage(requests=1, input_tokens=10, output_tokens=5), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("the benchmark does not stream")


@function_tool
async def look_up(key: str) -> str:
    """Look up a value."""
    return f"value of {key}"


agent = Agent(name="benchmark", instructions="Look things up.", tools=[look_up], model=InstantModel())
CONFIG = RunConfig(tracing_disabled=True)


async def plain() -> None:
    await Runner.run(agent, "go", run_config=CONFIG)


async def empty() -> dict[str, Any]:
    return {"ok": "value"}


async def bare_steps(count: int) -> str:
    for number in range(count):
        await DBOS.run_step_async({"name": f"step_{number}"}, empty)
    return "done"


async def durable() -> None:
    result = await timestep.run_agent_workflow(agent, "go", workflow_id=str(uuid.uuid4()), run_config=CONFIG)
    assert result.output == "done", result


class Counter:
    """Counts statements and commits of every engine of this process while it is switched on."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.is_on = False
        sa.event.listen(sa.Engine, "before_cursor_execute", self._statement)
        sa.event.listen(sa.Engine, "commit", self._commit)

    def _statement(self, *arguments: Any) -> None:
        if self.is_on:
            self.counts["statements"] += 1

    def _commit(self, *arguments: Any) -> None:
        if self.is_on:
            self.counts["commits"] += 1

    async def of(self, work: Callable[[], Awaitable[Any]], repeats: int = 10) -> dict[str, float]:
        self.counts.clear()
        self.is_on = True
        for _ in range(repeats):
            await work()
        self.is_on = False
        return {name: count / repeats for name, count in self.counts.items()}


async def measure(variants: dict[str, Callable[[], Awaitable[Any]]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each variant; the variants take turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 3):
        for name, work in variants.items():
            started = time.perf_counter()
            await work()
            if number >= 3:  # the first rounds warm up
                times[name].append((time.perf_counter() - started) * 1000)
    return times


async def many(work: Callable[[], Awaitable[Any]], count: int) -> float:
    """Return the seconds that `count` concurrent runs take."""
    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(count)))
    return time.perf_counter() - started


def dbos_openai_agents() -> Callable[[], Awaitable[Any]] | None:
    """Return the peer's variant with its tool as a step, or None when the package is not installed.

    The peer stores pickles, so the journal's serializer gets a pickling fallback, in this process only.
    """
    try:
        from dbos_openai_agents import DBOSRunner
    except ImportError:
        return None
    serialize, deserialize = JournalSerializer.serialize, JournalSerializer.deserialize

    def with_pickles(self: JournalSerializer, data: Any) -> str:
        try:
            return serialize(self, data)
        except timestep.TimestepError:
            return "pickle:" + base64.b64encode(pickle.dumps(data)).decode()

    def from_pickles(self: JournalSerializer, text: str) -> Any:
        if text.startswith("pickle:"):
            return pickle.loads(base64.b64decode(text.removeprefix("pickle:")))
        return deserialize(self, text)

    JournalSerializer.serialize, JournalSerializer.deserialize = with_pickles, from_pickles

    @function_tool(name_override="look_up")
    @DBOS.step(name="peer_look_up")
    async def peer_look_up(key: str) -> str:
        """Look up a value."""
        return f"value of {key}"

    peer = Agent(name="peer", instructions="Look things up.", tools=[peer_look_up], model=InstantModel())

    @DBOS.workflow(name="peer_run")
    async def peer_run() -> str:
        result = await DBOSRunner.run(peer, "go", run_config=RunConfig(tracing_disabled=True))
        return str(result.final_output)

    ours, inside = get_default_agent_runner(), 0

    async def with_the_sdks_own_runner() -> None:  # under Timestep's, the peer's calls would be steps twice
        nonlocal ours, inside
        if not inside:
            ours = get_default_agent_runner()
            set_default_agent_runner(AgentRunner())
        inside += 1
        try:
            await peer_run()
        finally:
            inside -= 1
            if not inside:
                set_default_agent_runner(ours)

    return with_the_sdks_own_runner


async def main(rounds: int, concurrent: int, as_json: bool) -> int:
    """Measure, print, and return 1 when the floor is broken."""
    steps = DBOS.workflow(name="bare_steps")(bare_steps)
    peer = dbos_openai_agents()
    timestep.register_agents(agent)
    timestep.configure_dbos()
    timestep.ensure_dbos_launched()

    async def bare() -> None:
        await steps(TURNS + TOOL_CALLS)

    variants: dict[str, Callable[[], Awaitable[Any]]] = {"plain": plain, "steps": bare, "timestep": durable}
    if peer is not None:
        try:
            await peer()
            variants["dbos"] = peer
        except Exception as error:  # noqa: BLE001 - the peer pins other versions and may not work with these
            print(f"dbos-openai-agents does not run here: {type(error).__name__}: {error}")
    times = await measure(variants, rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    counter = Counter()
    counts = {name: await counter.of(work) for name, work in variants.items() if name != "plain"}
    starts = measure_starts()
    ratio = (medians["timestep"] - medians["plain"]) / medians["steps"]
    seconds = {name: await many(work, concurrent) for name, work in variants.items() if concurrent}
    report = {
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "overhead_ratio": round(ratio, 3),
        "floor": FLOOR,
        "per_run": counts,
        "start_ms_over_bare_python": starts,
        "concurrent": {"runs": concurrent, "seconds": {name: round(value, 2) for name, value in seconds.items()}},
    }
    if as_json:
        print(json.dumps(report))
    else:
        show(report)
    timestep.cleanup_dbos()
    is_fast = all(starts[name] < limit for name, limit in START_FLOORS_MS.items())
    is_faster_than_peer = "dbos" not in medians or medians["timestep"] < medians["dbos"]
    return 0 if ratio <= FLOOR and is_fast and is_faster_than_peer else 1


def measure_starts(rounds: int = 11) -> dict[str, float]:
    """Return the median milliseconds that `import timestep` and `timestep --help` take over bare Python."""
    commands = {
        "bare": [sys.executable, "-c", ""],
        "import timestep": [sys.executable, "-c", "import timestep"],
        "timestep --help": [sys.executable, "-m", "timestep", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - started) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: round(value - medians["bare"], 1) for name, value in medians.items() if name != "bare"}


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    print(f"{TURNS} turns, {TOOL_CALLS} tool calls, model answers at once; medians of interleaved rounds")
    for name, value in report["median_ms"].items():
        counts = report["per_run"].get(name, {})
        extra = f"   {counts['statements']:6.1f} statements  {counts['commits']:5.1f} commits" if counts else ""
        print(f"  {name:10} {value:8.2f} ms{extra}")
    print(f"  (timestep - plain) / steps = {report['overhead_ratio']}   floor {FLOOR}")
    for name, value in report["start_ms_over_bare_python"].items():
        print(f"  {name:16} {value:6.1f} ms over bare Python   floor {START_FLOORS_MS[name]}")
    for name, value in report["concurrent"]["seconds"].items():
        print(f"  {report['concurrent']['runs']} concurrent {name:10} {value:8.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What durability costs.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--concurrent", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("dbos").setLevel(logging.ERROR)
    raise SystemExit(asyncio.run(main(options.rounds, options.concurrent, options.json)))
