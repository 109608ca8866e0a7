"""An agent whose runs leave a line when they begin and when they end, and that asks a person when it is told to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import side_log
from agents import Agent, Model, ModelResponse, function_tool
from agents.testing import assistant_message, function_call
from agents.usage import Usage

from timestep import create_queue, current_tool_call, ensure_dbos_launched, queue_agent_workflow, register_agents


class WalkerMind(Model):
    """Walks once, asks for leave before it when the input says so, then tells how many items it saw."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        items: list[Any] = input if isinstance(input, list) else [{"role": "user", "content": input}]
        last_user = max(number for number, item in enumerate(items) if item.get("role") == "user")
        has_walked = any(item.get("type") == "function_call_output" for item in items[last_user:])
        tool = "ask_and_walk" if items[last_user]["content"] == "ask" else "walk"
        output: Any = (
            assistant_message(str(len(items))) if has_walked else function_call(tool, {}, call_id=f"call-{len(items)}")
        )
        return ModelResponse(output=[output], usage=Usage(requests=1), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def _walk() -> str:
    run = current_tool_call().run_id
    side_log.write("walks", run)
    await side_log.stop_at(run, "walk")
    await asyncio.sleep(0.02)
    side_log.write("walked", run)
    return "walked"


@function_tool
async def walk() -> str:
    """Walk."""
    return await _walk()


@function_tool(needs_approval=True)
async def ask_and_walk() -> str:
    """Walk, when a person lets it."""
    return await _walk()


async def executor(*, limits: dict[str, Any] | None = None) -> None:
    """Execute the runs of the walker, from a quick queue, until killed."""
    register_agents(Agent[Any](name="walker", model=WalkerMind(), tools=[walk, ask_and_walk]))
    create_queue("walks", polling_interval_seconds=0.1, **(limits or {}))
    await ensure_dbos_launched()
    side_log.write("launched", "")
    while not (side_log.folder() / "end").exists():
        await asyncio.sleep(side_log.POLL_SECONDS)
    os._exit(0)


async def queue(*, runs: Sequence[dict[str, Any]]) -> None:
    """Queue runs one after the other, from a process that takes none."""
    register_agents(Agent[Any](name="walker", model=WalkerMind(), tools=[walk, ask_and_walk]))
    await ensure_dbos_launched(queues=())
    for run in runs:
        queue_agent_workflow("walker", queue_name="walks", **run)
    side_log.write("queued", "")
    os._exit(0)
