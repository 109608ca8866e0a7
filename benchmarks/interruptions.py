"""What it costs to wait for a person: one executor, many interrupted runs, and a process that decides.

    python benchmarks/interruptions.py [--runs 1000] [--decisions 100] [--turns 20,200,1000] [--json]

On an embedded Postgres of its own, in a temporary folder. An executor in a process of its own interrupts `--runs` runs
and idles with them; then it is measured

- how much its memory has grown, and how many statements a second it makes (BEGIN and COMMIT counted, as Postgres
  logs them), idle;
- the time from one decision to the start of the tool, p50 and p99, next to `DBOS.recv` doing the same;
- how many runs go on per second when all of them are decided;
- how long a piece of the model's text takes to a reader in another process, at 50 pieces a second;
- how long a run of 20, 200 and 1,000 turns takes after kill -9, from the launch of the next process to its next step,
  and how many bytes it has stored for each turn.

Floors: p50 of a decision at most 300 ms, at most 60 statements a second, p50 of the text at most 100 ms, every run ends
and each tool ran once. Exit code 1 when one is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import assistant_message, function_call
from dbos import DBOS, DBOSClient, SetWorkflowID
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent
from place import Place, folder, place_for, quantiles, rss_bytes

import timestep
from timestep.client.serializer import JournalSerializer

FLOOR_P50_MS = 300
FLOOR_STATEMENTS = 60
FLOOR_TEXT_MS = 100
PIECES = 200
PIECE_SECONDS = 0.02
AT_ONCE = 50
TOPIC = "decision"
GATE = "gate"
FIRST_PIECE_SECONDS = 1.0
"""What a model thinks before it speaks; a reader who connects later reads what is stored."""


class Clerk(Model):
    """Asks for one call of `act` a turn, as often as its input says, then answers; keeps no state."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        done = sum(1 for item in items if item.get("type") == "function_call_output")
        turns = int(items[0]["content"])
        output: list[Any] = [assistant_message("done")]
        if done < turns:
            output = [function_call("act", {"number": done + 1, "of": turns}, call_id=f"call_{done}")]
        return ModelResponse(output=output, usage=Usage(requests=1, input_tokens=10, output_tokens=5), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("the benchmark does not stream")


class Speaker(Model):
    """Says what time it is, again and again."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError("it only streams")

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(FIRST_PIECE_SECONDS)
        for _ in range(PIECES):
            yield ResponseTextDeltaEvent.model_construct(type="response.output_text.delta", delta=f"{time.time()} ")
            await asyncio.sleep(PIECE_SECONDS)
        final = Response.model_construct(id="r", output=[assistant_message("done")], usage=None)
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=final, sequence_number=0)


async def is_single(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
    """Runs of one call wait for a person; those of many are the long ones."""
    return arguments["of"] == 1


@function_tool(needs_approval=is_single)
async def act(number: int, of: int) -> str:
    """Note when it begins; the last call of a long run waits until the gate is open."""
    note(timestep.current_tool_call().run_id, number=number)
    while of > 1 and number == of and not (folder() / GATE).exists():
        await asyncio.sleep(0.005)
    return f"did {number}"


async def received() -> str:
    note(str(DBOS.workflow_id))
    return "received"


@DBOS.workflow(name="receiver")
async def receiver() -> str:
    """What DBOS itself offers: wait for a message, then a step."""
    await DBOS.recv_async(TOPIC, timeout_seconds=3600)
    return await DBOS.run_step_async({"name": "received"}, received)


def note(run_id: str, **fields: Any) -> None:
    """Write down that a body begins now."""
    with (folder() / "began.jsonl").open("a") as lines:
        lines.write(json.dumps({"run": run_id, "at": time.time(), **fields}) + "\n")


async def executor() -> None:
    """Do what the lines on stdin say, and answer each with a line on stdout."""
    timestep.register_agents(Agent(name="clerk", model=Clerk(), tools=[act]), Agent(name="speaker", model=Speaker()))
    timestep.configure_dbos()
    timestep.ensure_dbos_launched()
    reply("ready", time.time())
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, *words = line.split()
        if verb == "interrupt":
            limit = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(run_limited(limit, f"run-{number}") for number in range(int(words[0]))))
        elif verb == "receive":
            for number in range(int(words[0])):
                with SetWorkflowID(f"receiver-{number}"):
                    await DBOS.start_workflow_async(receiver)
        elif verb == "speak":
            _running.add(asyncio.ensure_future(timestep.run_agent_workflow(
                "speaker", "Speak", workflow_id="speaker", stream=True
            )))  # fmt: skip
        elif verb == "long":
            _running.add(asyncio.ensure_future(timestep.run_agent_workflow(
                "clerk", words[0], workflow_id=f"long-{words[0]}", max_turns=int(words[0]) + 5
            )))  # fmt: skip
        reply(verb, rss_bytes())


_running: set[Any] = set()


async def run_limited(limit: asyncio.Semaphore, run_id: str) -> None:
    async with limit:
        await timestep.run_agent_workflow("clerk", "1", workflow_id=run_id)


def reply(verb: str, value: float) -> None:
    sys.stdout.write(json.dumps({"verb": verb, "value": value}) + "\n")
    sys.stdout.flush()


class Child:
    """The executor, from outside."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--executor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready_at = self.answer()

    def tell(self, line: str) -> float:
        """Say what to do and return its answer when it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> float:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the executor has ended"
        return float(json.loads(line)["value"])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Bench(Place):
    """The server, and what is asked of the runs on it."""

    def wait_for(self, count: int, status: str) -> None:
        """Wait until so many runs have this status."""
        while self.rows("select count(*) from timestep.runs where status = %s", status)[0][0] < count:
            time.sleep(0.05)

    def began(self) -> dict[str, list[float]]:
        """Return when the bodies of each run have begun."""
        found: dict[str, list[float]] = {}
        path = folder() / "began.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            entry = json.loads(line)
            found.setdefault(entry["run"], []).append(entry["at"])
        return found

    async def wait_began(self, run_id: str, *, times: int = 1) -> float:
        while len(times_of := self.began().get(run_id, [])) < times:
            await asyncio.sleep(0.002)
        return times_of[-1]


async def measure_decisions(bench: Bench, first: int, count: int) -> list[float]:
    """Return the milliseconds from a decision to the start of its tool, one after the other."""
    found: list[float] = []
    async with timestep.Client(bench.url) as client:
        for number in range(first, first + count):
            at = time.time()
            await client.approve(f"run-{number}", by="benchmark")
            found.append((await bench.wait_began(f"run-{number}") - at) * 1000)
            await asyncio.sleep(0.137)  # so that decisions fall anywhere between two polls
    return found


async def measure_messages(bench: Bench, count: int) -> list[float]:
    """Return the milliseconds from a message of DBOS to the step that follows it."""
    client = DBOSClient(system_database_url=bench.url.replace("postgresql://", "postgresql+psycopg://"),
                        dbos_system_schema="dbos", serializer=JournalSerializer())  # fmt: skip
    found: list[float] = []
    for number in range(count):
        at = time.time()
        await client.send_async(f"receiver-{number}", "yes", TOPIC)
        found.append((await bench.wait_began(f"receiver-{number}") - at) * 1000)
        await asyncio.sleep(0.137)
    client.destroy()
    return found


async def measure_text(child: Child) -> list[float]:
    """Return the milliseconds from a piece of the model's text to its reader here."""
    child.tell("speak")
    found: list[float] = []
    async for event in timestep.stream_run("speaker"):
        if event["type"] == "text_delta":
            now = time.time()
            found += [(now - float(stamp)) * 1000 for stamp in event["text"].split()]
    assert len(found) == PIECES, f"{len(found)} pieces of {PIECES}"
    return found


async def measure_crowd(bench: Bench, first: int, until: int) -> float:
    """Decide all runs that still wait; return how many have ended per second."""
    limit = asyncio.Semaphore(8)
    at = time.time()
    async with timestep.Client(bench.url) as client:

        async def decide(number: int) -> None:
            async with limit:
                await client.approve(f"run-{number}", by="benchmark")

        await asyncio.gather(*(decide(number) for number in range(first, until)))
    bench.wait_for(until, "succeeded")
    return (until - first) / (time.time() - at)


async def measure_recovery(bench: Bench, turns: int) -> dict[str, float]:
    """Kill a process in the last turn of a long run, and start another."""
    run_id = f"long-{turns}"
    (folder() / GATE).unlink(missing_ok=True)
    child = Child()
    child.tell(f"long {turns}")
    await bench.wait_began(run_id, times=turns)
    child.kill()
    child = Child()
    again_at = await bench.wait_began(run_id, times=turns + 1)
    (folder() / GATE).touch()
    while bench.rows("select status from timestep.runs where id = %s", run_id) != [("succeeded",)]:
        await asyncio.sleep(0.02)
    child.kill()
    stored = """
    select (select sum(pg_column_size(o.*)) from dbos.operation_outputs o where workflow_uuid like %s)
         + (select sum(pg_column_size(s.*)) from timestep.run_states s where run_id = %s)
         + (select sum(pg_column_size(u.*)) from timestep.usage u where run_id = %s)
         + (select sum(pg_column_size(c.*)) from timestep.tool_calls c where run_id = %s)"""
    [(size,)] = bench.rows(stored, f"{run_id}%", run_id, run_id, run_id)
    return {"recovery_ms": (again_at - child.ready_at) * 1000, "bytes_per_turn": float(size) / turns}


async def main(runs: int, decisions: int, turns: list[int]) -> dict[str, Any]:
    """Measure everything and return the report."""
    with place_for(Bench) as bench:
        child = Child()
        child.tell("interrupt 20")  # warm, and as many as there are at the start
        before = child.tell("rss")
        child.tell(f"interrupt {runs}")
        after = child.tell("rss")
        statements = bench.idle_statements()
        latencies = await measure_decisions(bench, 0, decisions)
        child.tell(f"receive {decisions}")
        messages = await measure_messages(bench, decisions)
        text = await measure_text(child)
        per_second = await measure_crowd(bench, decisions, runs)
        twice = [run for run, times in bench.began().items() if len(times) != 1]
        child.kill()
        return {
            "runs": runs,
            "memory_bytes_per_run": round((after - before) / max(1, runs - 20)),
            "idle_statements_per_second": round(statements, 1),
            "decision_to_tool_ms": quantiles(latencies),
            "dbos_recv_to_step_ms": quantiles(messages),
            "text_to_reader_ms": quantiles(text),
            "resumed_per_second": round(per_second, 1),
            "tools_not_run_once": twice,
            "long_runs": {str(count): rounded(await measure_recovery(bench, count)) for count in turns},
        }


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in values.items()}


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    ours, theirs = report["decision_to_tool_ms"], report["dbos_recv_to_step_ms"]
    print(f"{report['runs']} interrupted runs, one executor")
    print(f"  memory for each         {report['memory_bytes_per_run']:10,d} bytes")
    print(f"  idle statements         {report['idle_statements_per_second']:10.1f} a second   floor {FLOOR_STATEMENTS}")
    print(
        f"  decision to tool        {ours['p50']:10.1f} ms p50   {ours['p99']:8.1f} ms p99   floor {FLOOR_P50_MS} p50"
    )
    print(f"  DBOS.recv to step       {theirs['p50']:10.1f} ms p50   {theirs['p99']:8.1f} ms p99")
    text = report["text_to_reader_ms"]
    print(
        f"  text to its reader      {text['p50']:10.1f} ms p50   {text['p99']:8.1f} ms p99   floor {FLOOR_TEXT_MS} p50"
    )
    print(f"  go on when all decided  {report['resumed_per_second']:10.1f} runs a second")
    for turns, found in report["long_runs"].items():
        print(
            f"  {turns:>5} turns: recovery {found['recovery_ms']:8.1f} ms   {found['bytes_per_turn']:8.1f} bytes a turn"
        )


def is_good(report: dict[str, Any]) -> bool:
    """Whether the floors hold."""
    return (
        report["decision_to_tool_ms"]["p50"] <= FLOOR_P50_MS
        and report["idle_statements_per_second"] <= FLOOR_STATEMENTS
        and report["text_to_reader_ms"]["p50"] <= FLOOR_TEXT_MS
        and not report["tools_not_run_once"]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What it costs to wait for a person.")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--decisions", type=int, default=100)
    parser.add_argument("--turns", default="20,200,1000")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--executor", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("dbos").setLevel(logging.ERROR)
    if options.executor:
        asyncio.run(executor())
        raise SystemExit(0)
    found = asyncio.run(
        main(options.runs, options.decisions, [int(count) for count in options.turns.split(",") if count])
    )
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    raise SystemExit(0 if is_good(found) else 1)
