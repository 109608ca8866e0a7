"""A tool that needs an approval, asked for and given in one process: run, save, load, approve, go on.

python examples/approve_in_the_same_process.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import RunStateStore, SnapshotAlreadyResumed, run_agent


@function_tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pay an amount."""
    print(f"  paying {amount}")
    return f"paid {amount}"


def decide(said: list[str], results: list[str]) -> Decision:
    return f"Done: {', '.join(results)}." if results else [("pay", {"amount": 5}), ("pay", {"amount": 5000})]


async def main() -> None:
    agent = Agent[None](name="cashier", model=DecidingModel(decide), tools=[pay])
    with tempfile.TemporaryDirectory() as folder:
        state_store = RunStateStore(Path(folder) / "agent_state.json", agent)  # a file: no database is started
        result = await run_agent(agent, "Pay the two bills.")
        await state_store.save(result.to_state())

        state = await state_store.load()
        for interruption in state.get_interruptions():
            if "5000" in (interruption.arguments or ""):
                state.reject(interruption, rejection_message="not paid: too much")
            else:
                state.approve(interruption)
        result = await run_agent(agent, state)
        print(result.output)

        try:  # a state resumes once, so that nothing is paid twice
            await run_agent(agent, state)
        except SnapshotAlreadyResumed as refusal:
            print(f"refused: {type(refusal).__name__}")
        await state_store.close()


asyncio.run(main())
