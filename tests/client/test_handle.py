"""`Client.queue_run`: a program without the Agents SDK queues runs by the name of the agent, and watches them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import Client, RunLimits, queue_agent_workflow, register_agents
from timestep.client.handle import ClientRunHandle
from timestep.durable.process.engine import engine as launched_engine
from timestep.errors import InvalidInputError, NotDurableError, RunDuplicatedError, RunInputMismatchError
from timestep.store.runs import get_stored_run

QUEUING = """
import asyncio, sys
from timestep import Client

async def main():
    async with Client(sys.argv[1]) as client:
        handle = await client.queue_run("elsewhere", "Hi", run_id=sys.argv[2], context={"plan": "gold"})
        print(handle.run_id, await handle.status())

asyncio.run(main())
assert "agents" not in sys.modules and "openai" not in sys.modules
"""


@dataclass
class Customer:
    name: str
    orders: list[int]


@pytest.fixture
async def client(engine: Any) -> AsyncIterator[Client]:
    async with Client() as client:
        yield client


def says(*texts: str, name: str = "assistant") -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(text)] for text in texts]))


async def test_a_queued_run_is_executed_where_its_agent_is_and_is_waited_for_here(
    client: Client, engine: Any, new_id: str
) -> None:
    register_agents(says("Hello"))
    handle = await client.queue_run("assistant", "Hi", run_id=new_id, session_id=f"s-{new_id}", stream=True)

    assert handle.run_id == new_id
    run = await handle.wait()
    assert (run.status, run.output, run.session_id) == ("succeeded", "Hello", f"s-{new_id}")
    assert await handle.status() == "succeeded"
    events = [event async for event in handle.events()]
    assert [event["type"] for event in events][-1] == "run_finished"
    assert [event async for event in client.stream_run(new_id)] == events
    assert engine.run(new_id)["queue"] == "timestep_agent_queue"


def test_a_process_that_queues_never_loads_the_agents_sdk(engine: Any, new_id: str) -> None:
    words = [sys.executable, "-c", QUEUING, launched_engine().database.url, new_id]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{new_id} queued\n"
    assert engine.run(new_id)["context"] == {"plan": "gold"}


async def test_the_same_id_with_the_same_work_is_that_run_whichever_door_it_came_through(
    client: Client, new_id: str
) -> None:
    agent = says("Hello", name="greeter")
    register_agents(agent)
    first = await queue_agent_workflow(agent, "Hi", workflow_id=new_id, session_id="s", context={"a": 1})
    again = await client.queue_run("greeter", "Hi", run_id=new_id, session_id="s", context={"a": 1})
    assert again.run_id == first.run_id
    assert (await again.wait()).output == "Hello"
    with pytest.raises(RunInputMismatchError):
        await client.queue_run("greeter", "Ho", run_id=new_id, session_id="s", context={"a": 1})


async def test_the_context_arrives_as_the_class_that_the_agent_is_registered_with(client: Client) -> None:
    seen: list[Any] = []

    @function_tool
    def look(context: RunContextWrapper[Any]) -> str:
        seen.append(context.context)
        return "ok"

    model = ScriptedModel([[function_call("look", {}, call_id="c1")], [assistant_message("done")]])
    register_agents(Agent(name="assistant", model=model, tools=[look]), context_type=Customer)
    handle = await client.queue_run("assistant", "Hi", context={"name": "Ann", "orders": [43]})
    assert (await handle.wait()).status == "succeeded"
    assert seen == [Customer("Ann", [43])]


async def test_how_a_queue_takes_the_run_and_what_it_may_use_is_stored(
    client: Client, engine: Any, new_id: str
) -> None:
    handle = await client.queue_run(
        "nobody", [{"role": "user", "content": "Hi"}], run_id=new_id, queue="slow", model="tiny", priority=3,
        deduplication_id="d", delay_seconds=60, limits=RunLimits(max_tokens=5),
    )  # fmt: skip
    stored = launched_engine().database.run_sync(get_stored_run, new_id)
    assert (stored.run.queue, stored.request.model, stored.request.limits) == ("slow", "tiny", RunLimits(max_tokens=5))
    [workflow] = engine.query("select status, priority from dbos.workflow_status where workflow_uuid = %s", new_id)
    assert workflow == {"status": "DELAYED", "priority": 3}
    with pytest.raises(RunDuplicatedError) as raised:
        await client.queue_run("nobody", "Hi", queue="slow", deduplication_id="d")
    assert raised.value.run_id == new_id
    await client.cancel_run(handle.run_id)
    assert (await handle.wait()).status == "cancelled"


def test_a_handle_is_frozen_and_shows_its_run() -> None:
    async def connect() -> Any:
        raise AssertionError

    handle = ClientRunHandle(run_id="r", connect=connect)
    assert repr(handle) == "ClientRunHandle(run_id='r')"
    with pytest.raises(FrozenInstanceError):
        handle.run_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "options", "error", "says"),
    [
        (("", "Hi"), {}, InvalidInputError, "agent is a name, not ''"),
        ((None, "Hi"), {}, InvalidInputError, "agent is a name, not None"),
        (("a", " "), {}, InvalidInputError, "The input is empty"),
        (("a", 7), {}, InvalidInputError, "The input is text or a list of items, not int"),
        (("a", "Hi"), {"model": ""}, InvalidInputError, "model is a name"),
        (("a", "Hi"), {"run_id": "a\nb"}, InvalidInputError, "a\\nb"),
        (("a", "Hi"), {"priority": 0}, InvalidInputError, "priority is a whole number"),
        (("a", "Hi"), {"delay_seconds": -1}, InvalidInputError, "delay_seconds is a number"),
        (("a", "Hi"), {"limits": {"max_tokens": 1}}, InvalidInputError, "limits is a RunLimits"),
        (("a", "Hi"), {"context": Customer("Ann", [])}, NotDurableError, "Customer is not JSON"),
    ],
)
async def test_what_is_malformed_is_refused_before_anything_is_stored(
    client: Client, engine: Any, words: Any, options: Any, error: type[Exception], says: str
) -> None:
    before = engine.query("select count(*) as runs from timestep.runs")
    with pytest.raises(error) as raised:
        await client.queue_run(*words, **options)
    assert says in str(raised.value)
    assert engine.query("select count(*) as runs from timestep.runs") == before
