"""Fan out and gather: a tool starts one run for each paper, waits for all of them, and puts the answers together.

Run it with `python examples/gather_runs.py`. Each sub-run is durable by itself. If the process dies while the tool
waits, the tool is repeated, finds the same runs by their ids, and waits again.
"""

from __future__ import annotations

import asyncio

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import ensure_dbos_launched, gather_runs, queue_agent_workflow, register_agents, run_agent_workflow

reader = Agent(name="reader", model=DecidingModel(lambda said, results: f"{said[-1]} is about tides."))


@function_tool
async def read_all(papers: list[str]) -> str:
    """Read papers, all at the same time."""
    handles = [queue_agent_workflow(reader, paper) for paper in papers]
    results = await gather_runs(*handles)
    for result in results:
        print(f"  {result.run_id}: {result.output}")
    return " ".join(result.output for result in results)


def decide(said: list[str], results: list[str]) -> Decision:
    if not results:
        return [("read_all", {"papers": ["Paper A", "Paper B", "Paper C"]})]
    return f"Together: {results[0]}"


editor = Agent(name="editor", model=DecidingModel(decide), tools=[read_all])


async def main() -> None:
    register_agents(editor, reader)
    ensure_dbos_launched()
    result = await run_agent_workflow(editor, "Read the papers.")
    print(f"run {result.run_id} has {result.status}: {result.output}")


if __name__ == "__main__":
    asyncio.run(main())
