"""Queued runs: the handle, priorities, deduplication, delays, agents that are not there yet."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from agents import Agent, RunState, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from dbos import DBOS

from timestep import (
    Session,
    queue_agent_workflow,
    register_agents,
    run_agent_workflow,
)
from timestep.client.runs import cancel_run, resume_run
from timestep.durable.process.engine import engine as launched_engine
from timestep.durable.process.registered_agents import forget_agents
from timestep.errors import InvalidInputError, RunDuplicatedError, RunInputMismatchError, TimestepError


def says(*texts: str, name: str = "assistant", **options: Any) -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(text)] for text in texts]), **options)


async def test_the_run_is_stored_when_the_call_returns(engine: Any, new_id: str) -> None:
    queue_agent_workflow(says("Hello"), "Hi", workflow_id=new_id, delay_seconds=3600)

    assert engine.status(new_id) == "queued"
    assert engine.value("select status from dbos.workflow_status where workflow_uuid = %s", new_id) == "DELAYED"


async def test_a_smaller_priority_number_runs_first(engine: Any, new_id: str) -> None:
    order: list[str] = []
    first_runs, go_on = threading.Event(), threading.Event()
    await DBOS.register_queue_async("one-lane", global_concurrency=1, polling_interval_sec=0.1)

    @function_tool
    def note(name: str) -> str:
        order.append(name)
        if name == "blocker":
            first_runs.set()
            go_on.wait(60)
        return name

    def agent(name: str) -> Agent[Any]:
        steps = [[function_call("note", {"name": name}, call_id="c1")], [assistant_message("done")]]
        return Agent(name=name, tools=[note], model=ScriptedModel(steps))

    handles = [queue_agent_workflow(agent("blocker"), "Go", queue_name="one-lane", priority=1)]
    await asyncio.to_thread(first_runs.wait, 60)
    for name, priority in (("late", 9), ("middle", 5), ("early", 1)):
        handles.append(queue_agent_workflow(agent(name), "Go", queue_name="one-lane", priority=priority))
    go_on.set()
    for handle in handles:
        await handle.get_result()

    assert order == ["blocker", "early", "middle", "late"]


async def test_a_deduplication_id_is_refused_while_its_run_is_there(engine: Any, new_id: str) -> None:
    agent = says("one", "two")
    same = {"deduplication_id": f"d-{new_id}", "delay_seconds": 3600}
    queue_agent_workflow(agent, "Hi", workflow_id=new_id, **same)

    with pytest.raises(RunDuplicatedError, match=new_id) as refused:
        queue_agent_workflow(agent, "Hi again", workflow_id=f"{new_id}-2", **same)
    assert refused.value.run_id == new_id
    assert engine.status(f"{new_id}-2") is None
    other = queue_agent_workflow(agent, "Hi again", workflow_id=f"{new_id}-2", on_duplicate="return", **same)
    assert (other.run_id, other.get_status()) == (new_id, "queued")
    assert queue_agent_workflow(agent, "Hi", workflow_id=new_id, **same).run_id == new_id, "the run itself"

    cancel_run(launched_engine().connector, new_id)
    assert queue_agent_workflow(agent, "Hi again", workflow_id=f"{new_id}-2", **same).run_id == f"{new_id}-2"
    resume_run(launched_engine().connector, new_id)  # it has the id no more
    engine.wait_for_status(new_id, "succeeded")


async def test_a_time_limit_does_not_count_the_time_in_the_queue(engine: Any, new_id: str) -> None:
    handle = queue_agent_workflow(says("Hello"), "Hi", workflow_id=new_id, delay_seconds=1.5, timeout_seconds=1)

    assert (await handle.get_result()).output == "Hello"
    run = engine.run(new_id)
    assert (run["started_at"] - run["created_at"]).total_seconds() > 1.4


@pytest.mark.parametrize(
    "option",
    [
        {"priority": 0},
        {"priority": True},
        {"priority": 2**31},
        {"delay_seconds": -1},
        {"delay_seconds": float("nan")},
        {"deduplication_id": ""},
        {"partition_key": " a"},
        {"one_at_a_time": "agent"},
        {"on_duplicate": "ignore"},
        {"queue_name": "_dbos_internal_queue"},
        {"queue_name": ""},
    ],
    ids=str,
)
def test_a_bad_value_is_refused_by_its_name(engine: Any, new_id: str, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(option)).replace("queue_name", "queue name")):
        queue_agent_workflow(says("Hello"), "Hi", workflow_id=new_id, **option)
    assert engine.status(new_id) is None


async def test_the_same_id_again_is_the_same_run(engine: Any, new_id: str) -> None:
    agent = says("Hello")
    first = queue_agent_workflow(agent, "Hi", workflow_id=new_id)
    second = queue_agent_workflow(agent, "Hi", workflow_id=new_id)

    assert (await first.get_result()).output == (await second.get_result()).output == "Hello"
    assert len(agent.model.calls) == 1
    with pytest.raises(RunInputMismatchError):
        queue_agent_workflow(agent, "Something else", workflow_id=new_id)


async def test_a_queued_run_and_a_direct_one_of_one_id_are_one_run(engine: Any, new_id: str) -> None:
    agent = says("Hello")
    queue_agent_workflow(agent, "Hi", workflow_id=new_id)

    assert (await run_agent_workflow(agent, "Hi", workflow_id=new_id)).output == "Hello"
    assert len(agent.model.calls) == 1
    with pytest.raises(RunInputMismatchError):
        await run_agent_workflow(agent, "Something else", workflow_id=new_id)


async def test_context_limits_and_stream_go_with_the_run(engine: Any, new_id: str) -> None:
    seen = []

    @function_tool
    def look() -> str:
        return "seen"

    def instructions(wrapper: Any, agent: Any) -> str:
        seen.append(wrapper.context)
        return "Help."

    agent = Agent(
        name="assistant",
        instructions=instructions,
        tools=[look],
        model=ScriptedModel([[function_call("look", {}, call_id=f"c{number}")] for number in range(5)]),
    )
    handle = queue_agent_workflow(agent, "Hi", workflow_id=new_id, context={"user": "ann"}, max_turns=2, stream=True)

    with pytest.raises(Exception, match=r"Max turns \(2\)"):
        await handle.get_result()
    assert seen == [{"user": "ann"}] * 2
    assert engine.value("select count(*) from dbos.streams where workflow_uuid = %s", new_id) > 0


async def test_a_run_of_an_unknown_agent_is_interrupted_and_goes_on_by_itself_when_it_is_known(
    engine: Any, new_id: str
) -> None:
    agent = says("Hello")
    handle = queue_agent_workflow(agent, "Hi", f"s-{new_id}", workflow_id=new_id, delay_seconds=1)
    forget_agents()

    engine.wait_for_status(new_id, "interrupted")
    assert engine.run(new_id)["reason"] == "agent_not_registered"
    assert handle.get_status() == "interrupted"

    register_agents(agent)
    assert (await _settled(engine, handle)).output == "Hello"
    assert len(await Session(f"s-{new_id}").get_items()) == 2


async def _settled(engine: Any, handle: Any) -> Any:
    engine.wait_for_status(handle.run_id, "succeeded")
    return await handle.get_result()


async def test_a_parked_run_can_be_resumed_by_hand_too(engine: Any, new_id: str) -> None:
    agent = says("Hello")
    handle = queue_agent_workflow(agent, "Hi", workflow_id=new_id, delay_seconds=1)
    forget_agents()
    engine.wait_for_status(new_id, "interrupted")
    register_agents(agent)

    with contextlib.suppress(TimestepError):  # the executor may be quicker
        resume_run(launched_engine().connector, new_id)

    assert (await _settled(engine, handle)).output == "Hello"


async def test_a_run_state_can_be_queued(engine: Any, new_id: str) -> None:
    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        return f"paid {amount}"

    agent = Agent(
        name="assistant",
        tools=[pay],
        model=ScriptedModel([[function_call("pay", {"amount": 3}, call_id="c1")], [assistant_message("Paid.")]]),
    )
    state: RunState[Any] = (await run_agent_workflow(agent, "Pay 3")).to_state()
    state.approve(state.get_interruptions()[0])

    handle = queue_agent_workflow(agent, state, workflow_id=new_id, branch=True)
    assert (await handle.get_result()).output == "Paid."
