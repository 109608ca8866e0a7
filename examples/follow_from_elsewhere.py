"""Follow a run from another process: by its id alone, also over a reconnect and after its end.

Run it with `python examples/follow_from_elsewhere.py`. It queues a run and starts itself again as a watcher, which
knows the run's id and the database and launches nothing; `timestep runs tail ID` is the same for a terminal.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import ensure_dbos_launched, queue_agent_workflow, register_agents, stream_run


@function_tool
async def measure(place: str) -> str:
    """Measure the tide somewhere."""
    await asyncio.sleep(0.5)
    return f"{place}: 3.2 m"


def decide(said: list[str], results: list[str]) -> Decision:
    return f"I measured {results[0]} and rising." if results else [("measure", {"place": "Ostend"})]


async def watch(run_id: str) -> None:
    """Print the run; break off in the middle once, and go on from the next offset."""
    offset, is_broken_off = 0, False
    while True:
        async for event in stream_run(run_id, offset):
            show(event)
            if event["type"] == "run_finished":
                return
            if event["is_last"]:  # all events of this offset were seen
                offset = event["offset"] + 1
                if event["type"] == "tool_started" and not is_broken_off:
                    is_broken_off = True
                    print("watcher: connection lost, going on from offset", offset, flush=True)
                    break


def show(event: dict[str, object]) -> None:
    details = {name: event[name] for name in ("text", "tool", "is_error", "status") if name in event}
    print(f"watcher: {event['offset']:3}  {event['type']:13}  {details}", flush=True)


async def main() -> None:
    register_agents(Agent(name="gauge", model=DecidingModel(decide), tools=[measure]))
    ensure_dbos_launched()
    run_id = f"tide-{uuid.uuid4().hex[:8]}"
    watcher = await asyncio.create_subprocess_exec(sys.executable, __file__, run_id)
    handle = queue_agent_workflow("gauge", "How high is the tide?", stream=True, workflow_id=run_id)
    result = await handle.get_result()
    await watcher.wait()
    print(f"the run says: {result.output}")


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1]) if len(sys.argv) > 1 else main())
