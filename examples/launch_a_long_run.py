"""Launch a long run and come back for it: the call returns at once, any executor does the work.

Run it with `python examples/launch_a_long_run.py`. Run it again: the same id returns the recorded result at once,
and no tool is called.
"""

from __future__ import annotations

import asyncio

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import ensure_dbos_launched, queue_agent_workflow, register_agents

CITIES = ["Oslo", "Lima", "Cairo", "Hanoi"]


@function_tool
async def read_report(city: str) -> str:
    """Return the report of a city. It takes a while."""
    print(f"  reading {city}", flush=True)
    await asyncio.sleep(0.3)
    return f"{city}: 12 sites, all well"


def decide(said: list[str], results: list[str]) -> Decision:
    if len(results) < len(CITIES):
        return [("read_report", {"city": CITIES[len(results)]})]
    return "Summary: " + "; ".join(results)


agent = Agent(name="reporter", model=DecidingModel(decide), tools=[read_report])


async def main() -> None:
    register_agents(agent)
    ensure_dbos_launched()
    handle = queue_agent_workflow(
        agent, "Summarize the reports of all cities.", workflow_id="monthly-report-11", timeout_seconds=3600
    )
    print(f"run {handle.run_id} is {handle.get_status()}; this program could end here")
    result = await handle.get_result()
    print(f"run {result.run_id} has {result.status}: {result.output}")


if __name__ == "__main__":
    asyncio.run(main())
