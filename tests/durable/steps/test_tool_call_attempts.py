"""How often a call was started, over all segments of its run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, UserError, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import current_tool_call, run_agent_workflow
from timestep.client.runs import resume_run
from timestep.durable.process.engine import engine as launched


async def test_a_call_that_was_started_before_its_run_failed_knows_it_after_each_resume(
    engine: Any, new_id: str
) -> None:
    attempts: dict[str, list[int]] = {}
    has_begun = asyncio.Event()
    failures = 2

    def note() -> None:
        call = current_tool_call()
        attempts.setdefault(call.call_id, []).append(call.attempt)

    @function_tool
    async def slow() -> str:
        note()
        has_begun.set()
        if failures:
            await asyncio.Event().wait()
        return "slow"

    async def fails() -> str:
        nonlocal failures
        note()
        await has_begun.wait()
        if failures:
            failures -= 1
            raise ValueError("not yet")
        return "done"

    @function_tool
    async def later() -> str:
        note()
        return "later"

    turns = [
        [function_call("later", {}, call_id="before")],
        [function_call("slow", {}, call_id="slow"), function_call("fails", {}, call_id="fails")],
        [function_call("later", {}, call_id="after")],
        [assistant_message("over")],
    ]
    tools: list[Any] = [slow, function_tool(fails, failure_error_function=None), later]
    agent = Agent(name="assistant", tools=tools, model=ScriptedModel(turns))

    with pytest.raises(UserError, match="not yet"):
        await run_agent_workflow(agent, "Go", workflow_id=new_id)
    for _ in range(2):
        has_begun.clear()
        await asyncio.to_thread(resume_run, launched().connector, new_id)
        await asyncio.to_thread(engine.wait_for_status, new_id, "failed", "succeeded")

    assert engine.status(new_id) == "succeeded"
    assert attempts == {"before": [1], "slow": [1, 2, 3], "fails": [1, 2, 3], "after": [1]}
    query = "select attempt from timestep.tool_calls where run_id = %s and call_id = 'slow'"
    assert engine.value(query, new_id) == 3
