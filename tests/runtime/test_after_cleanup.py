"""After `cleanup_dbos()` in a loop that goes on: what does not execute works, and what executes launches again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import timestep
from timestep import (
    Client,
    QueueLimits,
    RunHandle,
    RunStateStore,
    Session,
    approve,
    cleanup_dbos,
    create_queue,
    ensure_dbos_launched,
    gather_runs,
    get_approval,
    is_dbos_launched,
    list_approvals,
    queue_agent_workflow,
    queue_many,
    register_agents,
    run_agent,
    run_agent_workflow,
    stream_run,
    wait_run,
)

Verb = Callable[["Before"], Awaitable[Any]]


@function_tool(needs_approval=True)
def refund(order: int) -> str:
    """Give the money back."""
    return "done"


@function_tool
def thread_name() -> str:
    """Say in which thread it runs."""
    return threading.current_thread().name


def clerk(name: str = "clerk") -> Agent[Any]:
    calls = [function_call("refund", {"order": 7}, call_id="c1")]
    return Agent(name=name, model=ScriptedModel([calls, [assistant_message("Paid")]]), tools=[refund])


def says(name: str = "assistant") -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message("Hello")] for _ in range(9)]))


class Before:
    """What a program has when the engine is stopped in its loop."""

    def __init__(self, run_id: str, waiting: Any, client: Client) -> None:
        self.run_id, self.waiting, self.client = run_id, waiting, client
        self.agent = says()


async def resume(before: Before) -> str:
    await before.client.cancel_run(before.waiting.run_id)
    return (await before.client.resume_run(before.waiting.run_id)).status


async def resume_of_a_new_client(before: Before) -> str:
    async with Client() as client:
        await client.cancel_run(before.waiting.run_id)
        return (await client.resume_run(before.waiting.run_id)).status


async def queue_by_name(before: Before) -> str:
    handle = await before.client.queue_run("assistant", "Hi")
    ensure_dbos_launched()
    return str((await handle.wait()).output)


async def events(before: Before) -> str:
    return [event["type"] async for event in stream_run(before.run_id)][-1]


async def events_of_a_result(before: Before) -> str:
    return [event["type"] async for event in before.waiting.stream_events()][-1]


async def decide(before: Before) -> str:
    [asked] = await list_approvals(before.waiting.run_id)
    await get_approval(asked.id)
    return (await approve(before.waiting.run_id, by="ann")).status


async def items(before: Before) -> int:
    session = Session(f"s-{before.run_id}")
    await session.add_items([{"role": "user", "content": "Hi"}])
    return len(await session.get_items())


async def save_and_load(before: Before) -> str | None:
    store = RunStateStore(agent=clerk(), session_id=f"s-{before.run_id}")
    await store.save(before.waiting.to_state())
    return (await store.load()).get_interruptions()[0].name


async def plain(before: Before) -> str:
    return (await run_agent(before.agent, "Hi")).final_output


async def execute(before: Before) -> str:
    return (await run_agent_workflow(before.agent, "Hi")).output


async def queued(before: Before) -> str:
    return (await queue_agent_workflow(before.agent, "Hi").get_result()).output


async def many(before: Before) -> list[str]:
    handles = queue_many(["Hi"], before.agent)
    return [result.output for result in await gather_runs(*handles)]


async def status(before: Before) -> str:
    return str(await RunHandle(before.run_id).get_status())


async def wait(before: Before) -> str:
    return (await wait_run(before.run_id)).output


async def queue_made(before: Before) -> str:
    create_queue(f"q-{before.run_id}", global_concurrency=2)
    return await before.client.create_queue(f"p-{before.run_id}", QueueLimits(global_concurrency=1))


async def thread_of_the_program(before: Before) -> str:
    return await asyncio.to_thread(lambda: "here")


VERBS: list[tuple[Verb, Any]] = [
    (resume, "cancelled"),
    (resume_of_a_new_client, "cancelled"),
    (queue_by_name, "Hello"),
    (events, "run_finished"),
    (events_of_a_result, "run_interrupted"),
    (decide, "approved"),
    (items, 3),
    (save_and_load, "refund"),
    (plain, "Hello"),
    (execute, "Hello"),
    (queued, "Hello"),
    (many, ["Hello"]),
    (status, "succeeded"),
    (wait, "Hello"),
    (queue_made, "made"),
    (thread_of_the_program, "here"),
]


@pytest.mark.parametrize(("verb", "expected"), VERBS, ids=lambda each: getattr(each, "__name__", ""))
async def test_it_works_again_after_the_engine_was_stopped_in_this_loop(
    engine: Any, new_id: str, verb: Verb, expected: Any
) -> None:
    assistant = says()
    register_agents(assistant, clerk())
    async with Client() as client:
        await run_agent_workflow(assistant, "Hi", f"s-{new_id}", workflow_id=new_id)
        waiting = await run_agent_workflow(clerk(), "Money back", workflow_id=f"w-{new_id}")
        assert waiting.interruptions
        before = Before(new_id, waiting, client)
        await client.get_run(new_id)

        cleanup_dbos()
        assert not is_dbos_launched()
        timestep.configure_dbos()
        assert await verb(before) == expected
