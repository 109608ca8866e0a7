"""Decide from the command line: a run waits for an approval without a process, and a command lets it go on.

Run it with `python examples/decide_from_the_command_line.py`. The command could be typed in another terminal, on
another machine, next week: `timestep approvals list` shows what waits.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import list_approvals, run_agent_workflow


@function_tool(needs_approval=True)
async def refund(order: int, amount: int) -> str:
    """Refund an order."""
    return f"{amount} refunded for order {order}"


def decide(said: list[str], results: list[str]) -> Decision:
    if not results:
        return [("refund", {"order": 43, "amount": 20})]
    return f"Done: {results[0]}."


agent = Agent(name="clerk", model=DecidingModel(decide), tools=[refund])


def timestep(*words: str) -> None:
    """Run the command `timestep`, as a person at a terminal does."""
    print("$ timestep", *words, flush=True)
    subprocess.run([sys.executable, "-m", "timestep", *words], check=True, stderr=subprocess.STDOUT)


async def main() -> None:
    run_id = f"refund-{uuid.uuid4().hex[:8]}"
    text = "Give order 43 its 20 back."
    result = await run_agent_workflow(agent, text, workflow_id=run_id)
    print(f"run {run_id} is {result.status}: it waits for {result.interruptions[0].name}")

    [waiting] = await list_approvals(run_id)
    await asyncio.to_thread(timestep, "approvals", "show", waiting.id)
    await asyncio.to_thread(timestep, "approvals", "approve", waiting.id, "--by", "ann")

    result = await run_agent_workflow(agent, text, workflow_id=run_id, on_interruption="wait")
    print(f"run {run_id} has {result.status}: {result.output}")


if __name__ == "__main__":
    asyncio.run(main())
