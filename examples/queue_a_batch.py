"""Queue a batch: many runs in few transactions, on a queue of their own, in order within each conversation.

Run it with `python examples/queue_a_batch.py`, twice if you like: the runs have ids, so the second time the stored
answers are read and no model is asked. From the command line the same is `timestep run --batch mails.jsonl`.
"""

from __future__ import annotations

import asyncio

from agents import Agent
from scripted import DecidingModel

from timestep import create_queue, ensure_dbos_launched, gather_runs, queue_many, register_agents

MAILS = [
    {"workflow_id": "mail-1", "session_id": "ann", "input_items": "Where is my order?"},
    {"workflow_id": "mail-2", "session_id": "bob", "input_items": "Please cancel my order."},
    {"workflow_id": "mail-3", "session_id": "ann", "input_items": "And the bill?"},
]

clerk = Agent(name="clerk", model=DecidingModel(lambda said, results: f"mail {len(said)} of yours: {said[-1]!r}"))


async def main() -> None:
    register_agents(clerk)
    create_queue("mails", global_concurrency=10)
    ensure_dbos_launched()
    handles = queue_many(MAILS, clerk, queue_name="mails")
    for result in await gather_runs(*handles):
        print(f"{result.run_id}: {result.output}")


if __name__ == "__main__":
    asyncio.run(main())
