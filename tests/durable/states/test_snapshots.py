"""Stored states: one resumes once, and a finished one not at all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from agents import Agent, Runner, RunResultStreaming, function_tool
from agents.testing import function_call
from dbos import DBOS
from pydantic import BaseModel
from refund_desk import Desk, Turns, approved, newest

from timestep import (
    RunStateStore,
    SnapshotAlreadyResumed,
    queue_agent_workflow,
    register_agents,
    run_agent,
    run_agent_workflow,
)
from timestep.client.runs import cancel_run
from timestep.durable.process.engine import engine as launched
from timestep.errors import (
    InvalidInputError,
    RunStateNotFoundError,
)


async def test_a_plain_resume_is_noted_and_a_second_one_refused(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    first, second = await approved(store), await approved(store)
    assert (await run_agent(desk.agent, first)).output == "done"

    row = newest(engine, store)
    assert (row["resumed_by"], row["resumed_at"] is not None) == ("plain", True)
    with pytest.raises(SnapshotAlreadyResumed, match=f"{row['id']} was resumed by a plain run at") as refusal:
        await run_agent(desk.agent, second)
    assert "branch=True" in refusal.value.hint
    with pytest.raises(SnapshotAlreadyResumed):
        await run_agent_workflow(desk.agent, second)
    assert desk.refunded == ["7"]
    assert (await run_agent(desk.agent, second, branch=True)).output == "done"
    assert desk.refunded == ["7", "7"]


async def test_of_two_plain_resumes_at_once_one_is_refused(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    states = [await approved(store), await approved(store)]
    results = await asyncio.gather(*(run_agent(desk.agent, state) for state in states), return_exceptions=True)

    assert sorted(type(each).__name__ for each in results) == ["RunResult", "SnapshotAlreadyResumed"]
    assert desk.refunded == ["7"]


async def test_a_resume_that_raised_gives_its_claim_back(engine: Any) -> None:
    desk = Desk(RuntimeError("no model"), "done")
    store = await desk.interrupted()
    with pytest.raises(RuntimeError, match="no model"):
        await run_agent(desk.agent, await approved(store))
    assert newest(engine, store)["resumed_by"] is None

    task = asyncio.ensure_future(run_agent(desk.agent, await approved(store)))
    desk.model.wait = asyncio.Event()
    while desk.model.count < 2:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    desk.model.wait = None
    assert (await run_agent(desk.agent, await approved(store))).output == "done"


async def test_an_interruption_again_is_a_resume_too(engine: Any) -> None:
    desk = Desk(function_call("refund", {"order": "8"}, call_id="c2"), "done")
    store = await desk.interrupted()
    result = await run_agent(desk.agent, await approved(store))
    assert result.interruptions
    with pytest.raises(SnapshotAlreadyResumed):
        await run_agent(desk.agent, await approved(store))
    await store.save(result.to_state())
    assert (await run_agent(desk.agent, await approved(store))).output == "done"
    assert desk.refunded == ["7", "8"]


async def test_a_streamed_resume_is_held_until_its_stream_has_ended(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    result = await run_agent(desk.agent, await approved(store), stream=True, result_processor=None)
    with pytest.raises(SnapshotAlreadyResumed, match="now"):
        await run_agent(desk.agent, await approved(store))
    assert newest(engine, store)["resumed_by"] is None
    async for _ in result.stream_events():
        pass
    assert (result.output, newest(engine, store)["resumed_by"]) == ("done", "plain")

    failing = Desk(RuntimeError("no model"), "done")
    store = await failing.interrupted()
    with pytest.raises(RuntimeError):
        await run_agent(failing.agent, await approved(store), stream=True)
    assert (await run_agent(failing.agent, await approved(store), stream=True)).output == "done"


async def test_no_connection_is_left_behind(engine: Any, until: Any) -> None:
    desk = Desk(RuntimeError("no model"), "done")
    store = await desk.interrupted()
    count = "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database " \
        "where datname = current_database())"  # fmt: skip
    before = engine.value(count)
    for expected in (RuntimeError, None, SnapshotAlreadyResumed):
        with pytest.raises(expected) if expected is not None else contextlib.nullcontext():
            await run_agent(desk.agent, await approved(store))
    await asyncio.to_thread(until, lambda: engine.value(count) <= before, "the locks are given back")


async def test_a_replay_of_the_workflow_that_resumed_may_resume_again(engine: Any, new_id: str) -> None:
    desk = Desk()
    store = await desk.interrupted()
    state = await approved(store)

    async def own() -> str:
        return (await run_agent(desk.agent, state)).output

    workflow = DBOS.workflow(name=f"own-{new_id}")(own)
    from dbos import SetWorkflowID

    with SetWorkflowID(new_id):
        assert await workflow() == "done"
    assert newest(engine, store)["resumed_by"] == new_id
    with pytest.raises(SnapshotAlreadyResumed, match=new_id):
        await run_agent(desk.agent, await approved(store))


@pytest.mark.parametrize("is_queued", [False, True])
async def test_a_durable_run_claims_the_snapshot_with_its_row(engine: Any, new_id: str, is_queued: bool) -> None:
    desk = Desk()
    store = await desk.interrupted()
    state, second = await approved(store), await approved(store)
    if is_queued:
        register_agents(desk.agent)
        result = await queue_agent_workflow(desk.agent, state, workflow_id=new_id).get_result()
    else:
        result = await run_agent_workflow(desk.agent, state, workflow_id=new_id)
    assert (result.output, result.run_id, desk.refunded) == ("done", new_id, ["7"])
    assert newest(engine, store)["resumed_by"] == new_id

    for start in (run_agent, run_agent_workflow):
        with pytest.raises(SnapshotAlreadyResumed, match=new_id):
            await start(desk.agent, second)
    with pytest.raises(SnapshotAlreadyResumed, match=new_id):
        queue_agent_workflow(desk.agent, second)
    assert (await run_agent_workflow(desk.agent, state, workflow_id=new_id)).output == "done"
    assert (await run_agent_workflow(desk.agent, second, branch=True)).output == "done"
    assert desk.refunded == ["7", "7"]


async def test_of_two_durable_resumes_at_once_one_is_refused(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    states = [await approved(store), await approved(store)]
    results = await asyncio.gather(*(run_agent_workflow(desk.agent, state) for state in states), return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["DurableRunResult", "SnapshotAlreadyResumed"]
    assert desk.refunded == ["7"]


async def test_a_claim_that_is_lost_at_the_start_is_raised_to_the_caller(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timestep.durable import start

    desk = Desk()
    store = await desk.interrupted()
    await run_agent(desk.agent, await approved(store))
    monkeypatch.setattr(start, "run_left_with_snapshot", lambda connection, request: None)  # as in the same moment
    with pytest.raises(SnapshotAlreadyResumed):
        await run_agent_workflow(desk.agent, await approved(store))
    assert desk.refunded == ["7"]


async def test_a_plain_run_that_goes_on_keeps_a_durable_one_out(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.model.wait = None
    store = await desk.interrupted()
    held = await run_agent(desk.agent, await approved(store), stream=True, result_processor=None)
    with pytest.raises(SnapshotAlreadyResumed):
        await run_agent_workflow(desk.agent, await approved(store))
    with pytest.raises(SnapshotAlreadyResumed):
        queue_agent_workflow(desk.agent, await approved(store))
    async for _ in held.stream_events():
        pass


async def test_a_durable_run_that_failed_or_was_cancelled_gives_the_snapshot_back(engine: Any, new_id: str) -> None:
    desk = Desk(RuntimeError("no model"), "done")
    store = await desk.interrupted()
    with pytest.raises(RuntimeError):
        await run_agent_workflow(desk.agent, await approved(store), workflow_id=new_id)
    assert (await run_agent_workflow(desk.agent, await approved(store))).output == "done"

    other = Desk(function_call("refund", {"order": "8"}, call_id="c2"))
    store = await other.interrupted()
    waiting = await run_agent_workflow(other.agent, await approved(store))
    with pytest.raises(SnapshotAlreadyResumed):
        await run_agent(other.agent, await approved(store))
    await asyncio.to_thread(cancel_run, launched().connector, waiting.run_id)
    await run_agent(other.agent, await approved(store))


async def test_a_program_finds_the_run_that_it_had_started_before_it_died(engine: Any, new_id: str) -> None:
    desk = Desk()
    store = await desk.interrupted()
    await run_agent_workflow(desk.agent, await approved(store), workflow_id=new_id)
    engine.query("update timestep.runs set attempt = 2 where id = %s", new_id)  # it was started again by recovery

    result = await run_agent_workflow(desk.agent, await approved(store))
    assert (result.run_id, result.output, desk.refunded) == (new_id, "done", ["7"])
    undecided = await store.load()
    undecided.reject(undecided.get_interruptions()[0])
    with pytest.raises(SnapshotAlreadyResumed):
        await run_agent_workflow(desk.agent, undecided)


async def test_the_state_of_a_durable_run_is_not_run_plainly(engine: Any, new_id: str) -> None:
    desk = Desk(function_call("refund", {"order": "7"}, call_id="c1"), "done")
    state = (await run_agent_workflow(desk.agent, "Refund", workflow_id=new_id)).to_state()
    with pytest.raises(InvalidInputError, match=new_id) as refusal:
        await run_agent(desk.agent, state)
    assert "run_agent_workflow" in refusal.value.hint


class Answer(BaseModel):
    """What the agents of these tests answer."""

    number: int


@pytest.mark.parametrize("stream", [False, True])
async def test_a_finished_state_returns_its_output_without_a_model(engine: Any, stream: bool) -> None:
    agent = Agent[Any](name="desk", model=Turns('{"number": 7}'), output_type=Answer)
    store = RunStateStore(agent)
    first = await run_agent(agent, "Hi", stream=stream)
    await store.save(first.to_state())
    for _ in range(2):
        state = await store.load()
        result = await run_agent(agent, state, stream=stream)
        assert result.output == result.final_output == Answer(number=7)
        assert (len(result.new_items), result.interruptions, result.last_agent) == (1, [], agent)
        assert isinstance(result, RunResultStreaming) == stream
        assert result.to_state().to_json() == state.to_json() == first.to_state().to_json()
        await store.save(result.to_state())
    assert agent.model.count == 1  # type: ignore[union-attr] - it is a Turns
    row = newest(engine, store)
    assert (row["kind"], row["output"], row["resumed_by"]) == ("final", {"number": 7}, None)


async def test_a_durable_run_of_a_finished_state_succeeds_at_once(engine: Any, new_id: str) -> None:
    agent = Agent[Any](name="desk", model=Turns('{"number": 7}'), output_type=Answer)
    store = RunStateStore(agent)
    await store.save((await run_agent(agent, "Hi")).to_state())
    result = await run_agent_workflow(agent, await store.load(), workflow_id=new_id)
    queued = await queue_agent_workflow(agent, await store.load()).get_result()

    assert result.output == queued.output == Answer(number=7)
    assert (engine.run(new_id)["status"], engine.run(new_id)["output"]) == ("succeeded", {"number": 7})
    assert engine.steps(new_id) == []
    assert agent.model.count == 1  # type: ignore[union-attr] - it is a Turns

    await store.save(result.to_state())
    again = await run_agent_workflow(agent, await store.load())
    assert (again.run_id, again.output) == (new_id, Answer(number=7))
    assert (await run_agent(agent, await store.load())).output == Answer(number=7)


async def test_the_kind_is_that_of_the_run_not_of_what_the_state_shows(engine: Any) -> None:
    @function_tool
    async def look() -> str:
        return "seen"

    def agent(**options: Any) -> Agent[Any]:
        turns = Turns(function_call("look", {}, call_id="c1"), "done")
        return Agent(name="desk", model=turns, tools=[look], **options)

    async def kind(agent: Agent[Any], state: Any) -> tuple[str, Any]:
        store = RunStateStore(agent)
        await store.save(state)
        row = newest(engine, store)
        return row["kind"], row["output"]

    stopping = agent(tool_use_behavior="stop_on_first_tool")
    state = (await run_agent(stopping, "Look")).to_state()
    assert await kind(stopping, state) == ("final", "seen")

    between = agent()
    result = Runner.run_streamed(between, "Look")
    async for _ in result.stream_events():
        result.cancel(mode="after_turn")
    assert await kind(between, result.to_state()) == ("checkpoint", None)

    stopped = agent()
    result = Runner.run_streamed(stopped, "Look")
    async for event in result.stream_events():
        if getattr(event, "name", "") == "tool_output":
            result.cancel()
    assert (await kind(stopped, result.to_state()))[0] == "checkpoint"

    from agents import RunState

    again = agent(tool_use_behavior="stop_on_first_tool")
    for one, expected in ((again, ("final", "seen")), (agent(), ("final", "done"))):
        data = (await run_agent(one, "Look")).to_state().to_json()
        assert await kind(one, await RunState.from_json(one, data)) == expected  # nobody has seen its result


async def test_an_earlier_snapshot_is_reached_by_its_id(engine: Any) -> None:
    desk = Desk(function_call("refund", {"order": "8"}, call_id="c2"), "done")
    store = await desk.interrupted()
    first = newest(engine, store)["id"]
    result = await run_agent(desk.agent, await approved(store))
    assert await store.save(result.to_state()) == newest(engine, store)["id"]
    assert (await store.load()).get_interruptions()[0].call_id == "c2"
    await store.clear()

    assert (await store.load(snapshot_id=first)).get_interruptions()[0].call_id == "c1"
    branched = await run_agent(desk.agent, await approved(store, snapshot_id=first), branch=True)
    assert branched.output == "done"
    for store_of, number in ((store, 999_999), (RunStateStore(desk.agent), first)):
        with pytest.raises(RunStateNotFoundError, match=str(number)):
            await store_of.load(snapshot_id=number)
