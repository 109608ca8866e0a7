"""Many runs are queued in few transactions, all or none."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent
from agents.testing import ScriptedModel, assistant_message
from dbos import DBOS

from timestep import (
    queue_many,
    register_agents,
)
from timestep.errors import TimestepError


def says(*texts: str, name: str = "assistant", **options: Any) -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(text)] for text in texts]), **options)


async def test_many_runs_are_queued_in_few_transactions_once(engine: Any, new_id: str) -> None:
    register_agents(says("Hello"))
    await DBOS.register_queue_async("many", polling_interval_sec=0.1)
    runs = [{"input_items": "Hi", "workflow_id": f"{new_id}-{number}", "session_id": new_id} for number in range(1200)]
    shared: dict[str, Any] = {"queue_name": "many", "delay_seconds": 3600, "priority": 3}
    handles = queue_many(runs, "assistant", **shared)
    again = queue_many(runs, "assistant", **shared)

    assert [handle.run_id for handle in handles] == [handle.run_id for handle in again]
    stored = engine.query(
        "select count(*) as runs, count(distinct xmin::text) as transactions, "
        "bool_and(priority = 3 and queue = 'many') as fits from timestep.runs where session_id = %s", new_id,
    )  # fmt: skip
    assert stored == [{"runs": 1200, "transactions": 3, "fits": True}]
    order = engine.query("select id from timestep.runs where session_id = %s order by session_place", new_id)
    assert [row["id"] for row in order] == [run["workflow_id"] for run in runs]


async def test_texts_are_queued_and_a_bad_run_is_named_before_any_is_stored(engine: Any, new_id: str) -> None:
    await DBOS.register_queue_async("many", polling_interval_sec=0.1)
    handles = queue_many(["Hi", "Hi"], says("one", "two"), queue_name="many")
    assert sorted([(await handle.get_result()).output for handle in handles]) == ["one", "two"]

    good = {"input_items": "Hi", "workflow_id": new_id}
    for bad, words in (
        ({"input_items": ""}, "Run 2 of the batch: The input is empty"),
        ({"input_items": "Hi", "prio": 1}, "Run 2 of the batch: It has no parameter 'prio'"),
        ({"input_items": "Hi", "priority": True}, "Run 2 of the batch: priority is"),
    ):
        with pytest.raises(TimestepError, match=words):
            queue_many([good, bad], says("Hello"))
    assert engine.status(new_id) is None
