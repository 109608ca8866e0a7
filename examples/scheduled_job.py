"""Start a run by the clock: here every two seconds, until two have succeeded.

Run it with `python examples/scheduled_job.py`. The schedule is a row in Postgres: while it is there, every executor
that knows the agent keeps it going. The example deletes it at the end.
"""

from __future__ import annotations

import asyncio
import queue

from agents import Agent, function_tool
from dbos import DBOS
from scripted import DecidingModel, Decision

from timestep import (
    RunHandle,
    create_scheduled_agent_workflow,
    current_tool_call,
    ensure_dbos_launched,
    register_agents,
)

sent = queue.Queue[str]()


@function_tool
async def count_orders() -> int:
    """Return how many orders are open."""
    return 3


@function_tool
async def send_mail(text: str) -> str:
    """Send a mail to the shop's owner."""
    sent.put(current_tool_call().run_id)
    return "sent"


def decide(said: list[str], results: list[str]) -> Decision:
    if not results:
        return [("count_orders", {})]
    if len(results) == 1:
        return [("send_mail", {"text": f"{results[0]} orders are open."})]
    return f"I have mailed that {results[0]} orders are open."


agent = Agent(name="morning-mail", model=DecidingModel(decide), tools=[count_orders, send_mail])


async def main() -> None:
    register_agents(agent)
    ensure_dbos_launched()
    schedule = create_scheduled_agent_workflow("*/2 * * * * *", agent, "Tell me about the open orders.")
    print(f"schedule {schedule.name} is there")
    try:
        for _ in range(2):
            run_id = await asyncio.to_thread(sent.get)
            result = await RunHandle(run_id).get_result()
            print(f"run {run_id} has {result.status}: {result.output}")
    finally:
        await DBOS.delete_schedule_async(schedule.name)
    print("schedule deleted")


if __name__ == "__main__":
    asyncio.run(main())
