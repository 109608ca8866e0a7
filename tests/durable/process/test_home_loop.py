"""Which event loop a run executes in, and how it goes on when that ends; over connections that are kept open."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from agents import Agent, OpenAIResponsesModel, function_tool
from keep_alive_server import KeepAliveServer
from openai import AsyncOpenAI

from timestep import (
    approve,
    event_loops,
    home_loop,
    queue_agent_workflow,
    register_agents,
    run_agent_workflow,
    wait_run,
)
from timestep.durable.process.gate import gate
from timestep.durable.process.registered_agents import forget_agents
from timestep.durable.seams import dbos_sdk
from timestep.errors import UnsupportedError
from timestep.runtime import chores

pytestmark = pytest.mark.usefixtures("engine", "models")

Until = Callable[[Callable[[], Any], str], Any]


class Calls:
    """What the tools did: the loops in which they ran. `may_end` lets the tool `linger` end."""

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.may_end = False


calls = Calls()


@function_tool(needs_approval=True)
async def pay() -> str:
    """Pay."""
    calls.loops.append(asyncio.get_running_loop())
    return "paid"


@function_tool
async def look() -> str:
    """Look."""
    calls.loops.append(asyncio.get_running_loop())
    return "seen"


@function_tool
async def linger() -> str:
    """Take some time."""
    calls.loops.append(asyncio.get_running_loop())
    while not calls.may_end:
        await asyncio.sleep(0.01)
    return "done"


@pytest.fixture(autouse=True)
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent[None]]:
    """An agent of OpenAI; nothing that is lost comes back by the slow way."""
    monkeypatch.setattr(chores, "LOOSE_ENDS_SECONDS", 3600)
    monkeypatch.setattr(home_loop, "_has_ended_under_others", False)
    calls.__init__()
    agent = Agent[None](name="desk", model="gpt-4.1", tools=[pay, look, linger])
    register_agents(agent)
    yield agent
    calls.may_end = True


async def becomes(claim: Callable[[], Any]) -> None:
    """Wait in this loop until something is so."""
    async with asyncio.timeout(30):
        while not claim():
            await asyncio.sleep(0.02)


def in_thread(main: Callable[[], Coroutine[Any, Any, Any]]) -> threading.Thread:
    """Start a thread with an event loop of its own."""
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    return thread


async def test_a_queued_run_executes_where_the_caller_ran_one(desk: Agent[None], models: KeepAliveServer) -> None:
    await run_agent_workflow(desk, "call look")
    result = await queue_agent_workflow(desk, "call look").get_result()
    assert result.output == "seen"
    assert set(calls.loops) == {asyncio.get_running_loop()}
    assert models.connections == 1


async def test_an_approval_from_elsewhere_while_the_caller_waits(desk: Agent[None], new_id: str, engine: Any) -> None:
    waiting = asyncio.ensure_future(run_agent_workflow(desk, "call pay", workflow_id=new_id, on_interruption="wait"))
    await becomes(lambda: engine.status(new_id) == "interrupted")
    await asyncio.to_thread(in_thread(lambda: approve(new_id, by="ann")).join)
    assert (await waiting).output == "paid"
    assert set(calls.loops) == {asyncio.get_running_loop()}


async def test_an_approval_that_nobody_waits_for_executes_here(desk: Agent[None], new_id: str, engine: Any) -> None:
    await run_agent_workflow(desk, "call pay", workflow_id=new_id)
    await approve(new_id, by="ann")
    await becomes(lambda: engine.status(new_id) == "succeeded")
    assert set(calls.loops) == {asyncio.get_running_loop()}


async def test_an_approval_alone_makes_its_loop_the_home(desk: Agent[None], new_id: str, engine: Any) -> None:
    await asyncio.to_thread(lambda: asyncio.run(run_agent_workflow(desk, "call pay", workflow_id=new_id)))
    await approve(new_id, by="ann")
    await becomes(lambda: engine.status(new_id) == "succeeded")
    assert set(calls.loops) == {asyncio.get_running_loop()}


def test_one_asyncio_run_after_another(desk: Agent[None], models: KeepAliveServer) -> None:
    outputs = [asyncio.run(run_agent_workflow(desk, "call look")).output for _ in range(3)]
    assert outputs == ["seen"] * 3
    assert models.connections == 3  # one for each loop, over both turns
    assert len(set(map(id, calls.loops))) == 3


def test_a_run_that_its_loop_leaves_goes_on_in_the_next(desk: Agent[None], new_id: str, engine: Any) -> None:
    async def leave() -> None:
        task = asyncio.ensure_future(run_agent_workflow(desk, "call linger", workflow_id=new_id))
        await becomes(lambda: calls.loops)
        assert not task.done()

    async def come_back() -> str:
        waiting = asyncio.ensure_future(run_agent_workflow(desk, "call linger", workflow_id=new_id))
        await becomes(lambda: len(calls.loops) == 2)
        assert calls.loops[1] is asyncio.get_running_loop()
        calls.may_end = True
        return (await waiting).output

    asyncio.run(leave())
    assert asyncio.run(come_back()) == "done"
    [workflow] = engine.query("select status from dbos.workflow_status where workflow_uuid = %s", new_id)
    assert workflow["status"] in ("PENDING", "SUCCESS")


def test_what_nobody_waits_for_goes_on_too(desk: Agent[None], new_id: str, engine: Any, until: Until) -> None:
    async def leave() -> None:
        queue_agent_workflow(desk, "call linger", workflow_id=new_id)
        await becomes(lambda: calls.loops)
        assert calls.loops == [asyncio.get_running_loop()]

    asyncio.run(leave())
    until(lambda: len(calls.loops) == 2, "the tool runs again")
    assert calls.loops[1] is dbos_sdk.own_loop()
    calls.may_end = True
    engine.wait_for_status(new_id, "succeeded")


def test_without_a_loop_runs_execute_in_the_engine_s_own(desk: Agent[None]) -> None:
    assert queue_agent_workflow(desk, "call look").get_result().output == "seen"
    assert calls.loops == [dbos_sdk.own_loop()]


async def test_a_result_that_is_read_in_a_loop_does_not_wait_for_that_loop(desk: Agent[None]) -> None:
    assert queue_agent_workflow(desk, "call look").get_result().output == "seen"
    assert calls.loops == [dbos_sdk.own_loop()]


async def test_a_run_under_way_in_a_loop_that_blocks_for_its_result(desk: Agent[None]) -> None:
    handle = queue_agent_workflow(desk, "call linger")
    await becomes(lambda: calls.loops)
    calls.may_end = True
    assert handle.get_result().output == "done"
    assert calls.loops == [asyncio.get_running_loop(), dbos_sdk.own_loop()]


async def test_a_second_loop_only_waits(desk: Agent[None]) -> None:
    home_loop.enter()
    outputs: list[str] = []

    async def second() -> None:
        outputs.append((await run_agent_workflow(desk, "call look")).output)
        outputs.append((await queue_agent_workflow(desk, "call look").get_result()).output)

    await asyncio.to_thread(in_thread(second).join)
    assert outputs == ["seen", "seen"]
    assert calls.loops == [asyncio.get_running_loop()] * 2


async def test_the_runs_of_a_second_loop_go_on_when_the_home_ends(desk: Agent[None], models: KeepAliveServer) -> None:
    threads: list[asyncio.AbstractEventLoop] = []
    outputs: list[str] = []

    async def home() -> None:
        home_loop.enter()
        threads.append(asyncio.get_running_loop())
        while len(calls.loops) < 2:
            await asyncio.sleep(0.01)

    async def second() -> None:
        threads.append(asyncio.get_running_loop())
        outputs.append((await run_agent_workflow(desk, "call linger")).output)

    first = in_thread(home)
    await becomes(lambda: threads)
    others = [in_thread(second) for _ in range(2)]
    await asyncio.to_thread(first.join)
    assert calls.loops[:2] == threads[:1] * 2
    await becomes(lambda: len(calls.loops) == 4)
    assert set(calls.loops[2:]) == set(threads[1:])  # loops come and go here: each run in the loop that waits for it
    calls.may_end = True
    for each in others:
        await asyncio.to_thread(each.join)
    assert outputs == ["done", "done"]


def test_a_run_under_which_homes_end_again_and_again_comes_to_its_end(
    desk: Agent[None], new_id: str, engine: Any
) -> None:
    async def short(count: int) -> None:
        home_loop.enter()
        await becomes(lambda: len(calls.loops) == count)

    async def first() -> None:
        queue_agent_workflow(desk, "call linger", workflow_id=new_id)
        await short(1)

    asyncio.run(first())
    asyncio.run(short(2))
    asyncio.run(short(3))
    assert calls.loops[2] is dbos_sdk.own_loop()
    calls.may_end = True
    engine.wait_for_status(new_id, "succeeded")
    assert len(calls.loops) == 3


@pytest.mark.parametrize("is_queued", [True, False], ids=["queued", "started"])
def test_a_loop_that_is_closed_without_a_word(
    desk: Agent[None], new_id: str, engine: Any, until: Until, is_queued: bool
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def leave() -> None:
        if is_queued:
            queue_agent_workflow(desk, "call linger", workflow_id=new_id)
        else:
            tasks.append(asyncio.ensure_future(run_agent_workflow(desk, "call linger", workflow_id=new_id)))
        await becomes(lambda: calls.loops)
        if (closing := event_loops.close_here()) is not None:  # nobody could close the connection later
            await closing

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    until(lambda: len(calls.loops) == 2, "the tool runs again")
    calls.may_end = True
    engine.wait_for_status(new_id, "succeeded")
    until(lambda: gate.inside == 0, "a drain waits for nothing of the loop that is closed")


def test_a_loop_that_is_paused(desk: Agent[None], new_id: str, engine: Any, until: Until) -> None:
    async def begin() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(run_agent_workflow(desk, "call linger", workflow_id=new_id))
        await becomes(lambda: calls.loops)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    until(lambda: len(calls.loops) == 2, "the tool runs again")
    assert calls.loops[1] is dbos_sdk.own_loop()
    calls.may_end = True
    engine.wait_for_status(new_id, "succeeded")
    assert loop.run_until_complete(task).output == "done"
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def test_a_blocked_home_keeps_its_lock(
    desk: Agent[None], new_id: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)
    confirm = gate.confirm

    def look(*, seconds: float) -> None:
        confirm(seconds=seconds)
        looks.release()

    monkeypatch.setattr(gate, "confirm", look)
    running = asyncio.ensure_future(run_agent_workflow(desk, "call linger", workflow_id=new_id))
    await becomes(lambda: calls.loops)
    for _ in range(7):  # longer than a takeover takes
        assert looks.acquire(timeout=30)
    calls.may_end = True
    assert (await running).output == "done"
    assert len(calls.loops) == 1
    assert engine.run(new_id)["attempt"] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its connection is never closed
def test_a_client_of_the_program_s_own_over_two_loops_is_explained(models: KeepAliveServer) -> None:
    model = OpenAIResponsesModel("gpt-4.1", AsyncOpenAI(base_url=f"{models.url}/v1", api_key="none"))
    agent = Agent[None](name="own", model=model)
    assert asyncio.run(run_agent_workflow(agent, "Hello")).output == "you said Hello"
    with pytest.raises(UnsupportedError, match="another event loop"):
        asyncio.run(run_agent_workflow(agent, "Hello"))
    del agent, model
    forget_agents()
    gc.collect()


async def test_a_loop_a_test_goes_on_at_once_1(desk: Agent[None]) -> None:
    assert (await run_agent_workflow(desk, "call look")).output == "seen"


async def test_a_loop_a_test_goes_on_at_once_2(desk: Agent[None], new_id: str) -> None:
    queue_agent_workflow(desk, "call look", workflow_id=new_id)
    assert (await wait_run(new_id)).output == "seen"
