"""A conversation across runs and processes: the items of a session are kept in Postgres, each exactly once.

Run it with `python examples/sessions.py`.
"""

from __future__ import annotations

import asyncio

from agents import Agent
from scripted import DecidingModel, Decision

from timestep import Session, run_agent, run_agent_workflow


def decide(said: list[str], results: list[str]) -> Decision:
    return f"I have heard {len(said)} messages; the first was {said[0]!r}."


agent = Agent(name="listener", model=DecidingModel(decide))


async def main() -> None:
    session = Session()
    for text in ("My name is Ada.", "I live in Turin."):
        result = await run_agent_workflow(agent=agent, input_items=text, session=session)
        print(f"> {text}\n{result.output}")

    same = Session(session.session_id)  # in another process, this id is all that is needed
    result = await run_agent(agent, "What do you know?", same)  # a plain run may use it too
    print(f"> What do you know?\n{result.output}")
    print(f"session {session.session_id} has {len(await same.get_items())} items")


if __name__ == "__main__":
    asyncio.run(main())
