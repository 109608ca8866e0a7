"""Many runs that wait hold nothing in the process, and all go on when they are decided, each once.

`TIMESTEP_CROWD_RUNS` is their number.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from typing import Any

from agents import Agent, RunResult, RunState, function_tool
from agents.testing import function_call
from turns import Turns

from timestep import Client, current_tool_call, register_agents, run_agent_workflow, wait_run
from timestep.durable.journal.scope import Scope, Segment
from timestep.durable.seams import dbos_recovery

RUNS = int(os.environ.get("TIMESTEP_CROWD_RUNS", "60"))
AT_ONCE = 20


class Asking(Turns):
    """Asks to pay once in each run: it decides from its input."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        is_paid = (
            any(item.get("type") == "function_call_output" for item in input) if isinstance(input, list) else False
        )
        return await Turns("done" if is_paid else function_call("pay", {}, call_id="c1")).get_response("", input)


def alive() -> list[Any]:
    """Return the objects of runs that are still in memory."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, (Segment, Scope, RunResult, RunState))]


async def test_many_runs_wait_without_memory_and_go_on_once(engine: Any, new_id: str, until: Any) -> None:
    paid: Counter[str] = Counter()

    @function_tool(needs_approval=True)
    async def pay() -> str:
        paid[current_tool_call().run_id] += 1
        return "paid"

    agent = Agent(name="shop", model=Asking(), tools=[pay])
    register_agents(agent)
    ids = [f"{new_id}-{number}" for number in range(RUNS)]
    limit = asyncio.Semaphore(AT_ONCE)

    async def interrupt(run_id: str) -> None:
        async with limit:
            await run_agent_workflow(agent, "Buy", workflow_id=run_id)

    left_by_others = len(alive())
    await asyncio.gather(*(interrupt(run_id) for run_id in ids))
    await asyncio.to_thread(until, lambda: not dbos_recovery.active_workflow_ids(), "no workflow is active")
    assert len(alive()) < left_by_others + 5, "what waits is rows"
    assert not paid

    async with Client(engine.server.url(engine.name)) as client:
        await asyncio.gather(*(client.approve(run_id, by="alice") for run_id in ids))
    results = [await wait_run(run_id) for run_id in ids]

    assert {result.output for result in results} == {"done"}
    assert paid == Counter(ids)
