"""Agents as tools: two sub-agents work at the same time, and every turn and tool call of theirs is a step of the run.

Run it with `python examples/sub_agent.py`.
"""

from __future__ import annotations

import asyncio
import uuid

from agents import Agent, function_tool
from dbos import DBOS
from scripted import DecidingModel, Decision

from timestep import run_agent_workflow


@function_tool
async def search(topic: str) -> str:
    """Search for a topic."""
    return f"two papers on {topic}"


def research(said: list[str], results: list[str]) -> Decision:
    return f"Found {results[0]}." if results else [("search", {"topic": said[-1]})]


def edit(said: list[str], results: list[str]) -> Decision:
    if not results:
        return [("ask_historian", {"input": "tide mills"}), ("ask_engineer", {"input": "tidal turbines"})]
    return "Article: " + " ".join(results)


historian = Agent(name="historian", model=DecidingModel(research), tools=[search])
engineer = Agent(name="engineer", model=DecidingModel(research), tools=[search])
editor = Agent(
    name="editor",
    model=DecidingModel(edit),
    tools=[
        historian.as_tool("ask_historian", "Ask about the past."),
        engineer.as_tool("ask_engineer", "Ask about machines."),
    ],
)


async def main() -> None:
    run_id = f"article-{uuid.uuid4().hex[:8]}"
    result = await run_agent_workflow(agent=editor, input_items="Write about tides.", workflow_id=run_id)
    print(result.output)
    for step in await DBOS.list_workflow_steps_async(run_id):
        print(f"  {step['function_id']:8}  {step['function_name']}")


if __name__ == "__main__":
    asyncio.run(main())
