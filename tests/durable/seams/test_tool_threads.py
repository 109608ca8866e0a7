"""Blocking tools have threads of their own: they delay no checkpoint of another run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import timestep
from timestep import Session, queue_agent_workflow, run_agent_workflow

EXECUTOR_THREADS = 2
SLEEPERS = 6
LIMIT_SECONDS = 40


@pytest.fixture
def few_threads(engine: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        timestep.cleanup_dbos()
        patch.setenv("TIMESTEP_EXECUTOR_THREADS", str(EXECUTOR_THREADS))
        timestep.ensure_dbos_launched()
        yield
        timestep.cleanup_dbos()
    timestep.ensure_dbos_launched()


class Sleeping:
    """Agents whose tool blocks its thread until it is woken."""

    def __init__(self) -> None:
        self.wake, self.count, lock = threading.Event(), 0, threading.Lock()

        @function_tool
        def sleep() -> str:
            with lock:
                self.count += 1
            self.wake.wait()
            return "slept"

        self.agents = [
            Agent(
                name=f"sleeper{number}",
                tools=[sleep],
                model=ScriptedModel([[function_call("sleep", {}, call_id="c1")], [assistant_message("awake")]]),
            )
            for number in range(SLEEPERS)
        ]


def brisk() -> Agent[Any]:
    @function_tool
    def look() -> str:
        return "seen"

    steps = [[function_call("look", {}, call_id=f"c{number}")] for number in range(3)]
    return Agent(name="brisk", tools=[look], model=ScriptedModel([*steps, [assistant_message("done")]]))


@pytest.fixture
def sleeping() -> Iterator[Sleeping]:
    sleeping = Sleeping()
    yield sleeping
    sleeping.wake.set()


@pytest.mark.usefixtures("few_threads")
def test_a_run_ends_while_more_tools_block_than_there_are_checkpoint_threads(sleeping: Sleeping, new_id: str) -> None:
    async def work() -> Any:
        runs = [asyncio.ensure_future(run_agent_workflow(agent, "Sleep")) for agent in sleeping.agents]
        try:
            await asyncio.wait_for(asyncio.shield(_all_sleep(sleeping)), LIMIT_SECONDS)
            result = await asyncio.wait_for(run_agent_workflow(brisk(), "Look", f"s-{new_id}"), LIMIT_SECONDS)
            assert not sleeping.wake.is_set()
        finally:
            sleeping.wake.set()
        assert [run.output for run in await asyncio.gather(*runs)] == ["awake"] * SLEEPERS
        assert len(await Session(f"s-{new_id}").get_items()) == 8
        return result

    assert asyncio.run(work()).output == "done"


async def _all_sleep(sleeping: Sleeping) -> None:
    while sleeping.count < SLEEPERS:
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("few_threads")
def test_a_queued_run_ends_while_queued_tools_block(engine: Any, sleeping: Sleeping, until: Any, new_id: str) -> None:
    handles = [queue_agent_workflow(agent, "Sleep") for agent in sleeping.agents]
    until(lambda: sleeping.count == SLEEPERS, "all sleep")

    queue_agent_workflow(brisk(), "Look", workflow_id=new_id)
    engine.wait_for_status(new_id, "succeeded")
    sleeping.wake.set()

    assert [handle.get_result().output for handle in handles] == ["awake"] * SLEEPERS
