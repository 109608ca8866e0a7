"""Save the state of a run that waits for a person in one process; approve it and go on in another.

    python examples/save_here_resume_elsewhere.py

The first process prints a session id and ends. The second one has nothing else: it loads the state by that id.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import RunStateStore, run_agent


@function_tool(needs_approval=True)
async def refund(order: str) -> str:
    """Refund an order."""
    print(f"  process {os.getpid()}: refunding order {order}", flush=True)
    return f"Order {order} is refunded."


def decide(said: list[str], results: list[str]) -> Decision:
    return results[-1] if results else [("refund", {"order": "7"})]


agent = Agent[None](name="desk", model=DecidingModel(decide), tools=[refund])


async def save() -> str:
    """Run until a person must decide, and store the state."""
    store = RunStateStore(agent)
    result = await run_agent(agent, "Please refund order 7.")
    for interruption in result.interruptions:
        print(f"process {os.getpid()}: waits for {interruption.name} {interruption.arguments}")
    await store.save(result.to_state())
    await store.close()
    return store.session_id


async def resume(session_id: str) -> None:
    """Load the state, approve what it waits for, and run to the end."""
    store = RunStateStore(agent, session_id)
    state = await store.load()
    for interruption in state.get_interruptions():
        state.approve(interruption)
    result = await run_agent(agent, state)
    await store.save(result.to_state())
    print(f"process {os.getpid()}: {result.output}")
    finished = await run_agent(agent, await store.load())  # a finished state runs no more
    print(f"again, without a call: {finished.output}")
    await store.close()


if len(sys.argv) > 1:
    asyncio.run(resume(sys.argv[1]))
else:
    session = asyncio.run(save())
    print(f"saved under {session}", flush=True)
    sys.exit(subprocess.run([sys.executable, __file__, session], check=False).returncode)
