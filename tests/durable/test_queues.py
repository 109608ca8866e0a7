"""Queues: declared, made on first use, and their limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent
from agents.testing import ScriptedModel, assistant_message
from dbos import DBOS

from timestep import (
    QueueLimits,
    create_queue,
    queue_agent_workflow,
)
from timestep.client.queues import get_queue, pause_queue
from timestep.durable.process.engine import engine as launched_engine
from timestep.errors import InvalidInputError


def says(*texts: str, name: str = "assistant", **options: Any) -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(text)] for text in texts]), **options)


async def test_the_default_queue_starts_fifty_in_a_minute(engine: Any) -> None:
    [queue] = [queue for queue in await DBOS.list_queues_async() if queue.name == "timestep_agent_queue"]

    assert queue.limiter == {"limit": 50, "period": 60}


async def test_a_queue_of_another_name_is_made_on_first_use(engine: Any, new_id: str) -> None:
    handle = queue_agent_workflow(says("Hello"), "Hi", queue_name="slow-lane", workflow_id=new_id)

    assert (await handle.get_result()).output == "Hello"
    assert engine.run(new_id)["queue"] == "slow-lane"


async def test_a_declared_queue_has_its_limits_and_stays_paused_when_it_is_declared_again(engine: Any) -> None:
    connector = launched_engine().connector
    create_queue("declared", global_concurrency=2, rate_limit=7)
    await asyncio.to_thread(pause_queue, connector, "declared")
    create_queue("declared", global_concurrency=3)

    found = await asyncio.to_thread(get_queue, connector, "declared")
    assert (found.limits, found.is_paused) == (QueueLimits(global_concurrency=3), True)


async def test_a_partitioned_queue_takes_runs_with_a_partition_alone(engine: Any, new_id: str) -> None:
    create_queue("parts", partition_concurrency=1, polling_interval_seconds=0.1)
    agent = says("one")
    with pytest.raises(InvalidInputError, match="has no partition_key"):
        queue_agent_workflow(agent, "Hi", queue_name="parts")
    with pytest.raises(InvalidInputError, match="is not partitioned"):
        queue_agent_workflow(agent, "Hi", partition_key="ann")
    same = {"queue_name": "parts", "partition_key": "ann", "deduplication_id": new_id}

    assert (await queue_agent_workflow(agent, "Hi", **same).get_result()).output == "one"
