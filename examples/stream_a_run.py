"""Watch a run live: events are numbered and stored, so any process can read them, from any offset, also later.

Run it with `python examples/stream_a_run.py`.
"""

from __future__ import annotations

import asyncio
import uuid

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import ensure_dbos_launched, queue_agent_workflow, register_agents, stream_run


@function_tool
async def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} is the sea's rise and fall"


def decide(said: list[str], results: list[str]) -> Decision:
    return f"I looked it up: {results[0]}." if results else [("look_up", {"word": "tide"})]


agent = Agent(name="lexicon", model=DecidingModel(decide), tools=[look_up])


async def main() -> None:
    register_agents(agent)
    ensure_dbos_launched()
    run_id = f"lookup-{uuid.uuid4().hex[:8]}"
    handle = queue_agent_workflow(agent, "What is a tide?", stream=True, workflow_id=run_id)
    last = 0
    async for event in stream_run(run_id):
        last = event["offset"]
        details = {key: event[key] for key in ("text", "tool", "is_error", "usage", "status") if key in event}
        print(f"{event['offset']:3}  {event['type']:14} {details}")
    result = await handle.get_result()
    again = [event["type"] async for event in stream_run(run_id, from_offset=last)]
    print(f"{result.output}\nread again from offset {last}: {again}")


if __name__ == "__main__":
    asyncio.run(main())
