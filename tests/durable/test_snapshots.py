"""Stored states: one resumes once, a finished one not at all, and what cannot be used is refused by name."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, Runner, RunResultStreaming, function_tool
from agents.testing import assistant_message, function_call
from agents.usage import Usage
from dbos import DBOS
from pydantic import BaseModel

from timestep import (
    RunStateStore,
    SnapshotAlreadyResumed,
    approve,
    queue_agent_workflow,
    register_agents,
    run_agent,
    run_agent_workflow,
    wait_run,
)
from timestep.durable.engine import engine as launched
from timestep.durable.registry import forget_agents
from timestep.errors import (
    AgentAlreadyRegisteredError,
    InvalidInputError,
    RunStateNotFoundError,
    SnapshotDamagedError,
    SnapshotMismatchError,
    SnapshotTooLargeError,
    UnsupportedError,
)
from timestep.runs import cancel_run, resume_run


class Turns(Model):
    """A model that says what it is told, turn after turn; each turn may wait for an event, or raise."""

    def __init__(self, *turns: Any, wait: asyncio.Event | None = None) -> None:
        self.turns, self.count, self.wait = turns, 0, wait

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        turn = self.turns[min(self.count, len(self.turns) - 1)]
        self.count += 1
        if self.wait is not None:
            await self.wait.wait()
        if isinstance(turn, Exception):
            raise turn
        output = [assistant_message(turn) if isinstance(turn, str) else turn]
        return ModelResponse(output=output, usage=Usage(requests=1), response_id=None)

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        from agents.testing import ModelStep, ScriptedModel

        response = await self.get_response()
        async for event in ScriptedModel([ModelStep(output=response.output)]).stream_response(*args, **kwargs):
            yield event


class Desk:
    """An agent whose refunds need a person, and what it did. `turns` follow the call that waits."""

    def __init__(self, *turns: Any, name: str = "desk", tools: bool = True, **options: Any) -> None:
        self.refunded: list[str] = []

        @function_tool(needs_approval=True)
        async def refund(order: str) -> str:
            """Refund an order."""
            self.refunded.append(order)
            return "refunded"

        self.model = Turns(*(turns or ("done",)))
        self.agent: Agent[Any] = Agent(name=name, model=self.model, tools=[refund] if tools else [], **options)

    async def interrupted(self, *, session_id: str | None = None, context: Any = None) -> RunStateStore:
        """Run to the interruption and store the state."""
        turns, self.model.turns = self.model.turns, (function_call("refund", {"order": "7"}, call_id="c1"),)
        result = await run_agent(self.agent, "Refund", context=context)
        self.model.turns, self.model.count = turns, 0
        store = RunStateStore(self.agent, session_id)
        await store.save(result.to_state())
        return store


async def approved(store: RunStateStore, **options: Any) -> Any:
    state = await store.load(**options)
    for item in state.get_interruptions():
        state.approve(item)
    return state


def newest(engine: Any, store: RunStateStore) -> dict[str, Any]:
    rows = engine.query("select * from timestep.run_states where session_id = %s order by id desc", store.session_id)
    return rows[0]


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


async def test_no_connection_is_left_behind(engine: Any) -> None:
    desk = Desk(RuntimeError("no model"), "done")
    store = await desk.interrupted()
    count = "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database " \
        "where datname = current_database())"  # fmt: skip
    before = engine.value(count)
    for expected in (RuntimeError, None, SnapshotAlreadyResumed):
        with pytest.raises(expected) if expected is not None else contextlib.nullcontext():
            await run_agent(desk.agent, await approved(store))
    assert engine.value(count) == before


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
    await asyncio.to_thread(cancel_run, launched().database, launched().client, waiting.run_id)
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


# What cannot be used


async def test_a_snapshot_of_another_agent_is_refused(engine: Any) -> None:
    store = await Desk().interrupted()
    with pytest.raises(SnapshotMismatchError, match="'desk', not of 'office'"):
        await RunStateStore(Desk(name="office").agent, store.session_id).load()
    assert (await store.load()).get_interruptions()


async def test_a_snapshot_of_a_newer_schema_or_of_another_sdk_is_refused(engine: Any) -> None:
    store = await Desk().interrupted()
    for change, value in (("schema_version", "1.999"), ("sdk", "javascript")):
        engine.query(f"update timestep.run_states set {change} = %s where session_id = %s", value, store.session_id)
        with pytest.raises(UnsupportedError, match=value):
            await store.load()


async def test_an_edited_snapshot_is_refused_and_usable_when_it_is_put_back(engine: Any) -> None:
    store = await Desk().interrupted()
    text = engine.value("select state::text from timestep.run_states where session_id = %s", store.session_id)
    for edited in (text.replace('\\"7\\"', '\\"70\\"'), "{}"):
        assert edited != text
        engine.query("update timestep.run_states set state = %s where session_id = %s", edited, store.session_id)
        with pytest.raises(SnapshotDamagedError):
            await store.load()
    engine.query("update timestep.run_states set state = %s where session_id = %s", text, store.session_id)
    assert (await store.load()).get_interruptions()


async def test_a_state_of_20_mb_is_refused_and_nothing_is_stored(engine: Any) -> None:
    desk = Desk("x" * 5_000_000)  # a state holds a text four times
    store = RunStateStore(desk.agent)
    result = await run_agent(desk.agent, "Hi")
    with pytest.raises(SnapshotTooLargeError, match="20,0"):
        await store.save(result.to_state())
    with pytest.raises(FileNotFoundError):
        await store.load()


async def test_a_tool_that_has_gone_is_named_and_the_state_usable_when_it_is_back(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    without = RunStateStore(Desk(tools=False).agent, store.session_id)
    with pytest.raises(SnapshotMismatchError, match="'refund', which 'desk' does not have"):
        await without.load()
    assert (await run_agent(desk.agent, await approved(store))).output == "done"


async def test_a_tool_of_a_nested_agent_that_has_gone_is_named(engine: Any) -> None:
    def outer(*, tools: bool) -> tuple[Desk, Agent[Any]]:
        inner = Desk(function_call("refund", {"order": "7"}, call_id="c1"), "inner done", name="inner", tools=tools)
        tool = inner.agent.as_tool(tool_name="ask_inner", tool_description="Asks")
        call = function_call("ask_inner", {"input": "go"}, call_id="outer")
        return inner, Agent(name="outer", model=Turns(call, "done"), tools=[tool])

    inner, agent = outer(tools=True)
    store = RunStateStore(agent)
    await store.save((await run_agent(agent, "Refund")).to_state())
    with pytest.raises(SnapshotMismatchError, match="refund"):
        await RunStateStore(outer(tools=False)[1], store.session_id).load()
    assert (await run_agent(agent, await approved(store))).output == "done"
    assert inner.refunded == ["7"]


async def test_a_durable_run_whose_tool_has_gone_is_parked_and_goes_on_after_the_fix(engine: Any, new_id: str) -> None:
    desk = Desk(function_call("refund", {"order": "7"}, call_id="c1"), "done")
    await run_agent_workflow(desk.agent, "Refund", workflow_id=new_id)
    forget_agents()
    register_agents(Desk(tools=False).agent)
    await approve(new_id, "c1", by="alice")
    await asyncio.to_thread(engine.wait_for_status, new_id, "interrupted")
    await asyncio.to_thread(engine.wait_until_refused, f"{new_id}~2")
    assert engine.run(new_id)["reason"] == "snapshot_mismatch_error"

    forget_agents()
    register_agents(desk.agent)
    await asyncio.to_thread(resume_run, launched().database, launched().client, new_id)
    assert (await wait_run(new_id)).output == "done"
    assert desk.refunded == ["7"]


async def test_two_agents_of_one_name(engine: Any) -> None:
    desk = Desk()
    store = await desk.interrupted()
    register_agents(desk.agent)
    with pytest.raises(AgentAlreadyRegisteredError, match="desk"):
        await run_agent_workflow(Desk(tools=False).agent, await approved(store))
    assert (await run_agent_workflow(desk.agent, await approved(store))).output == "done"


async def test_a_state_that_cannot_tell_two_agents_apart_is_not_stored(engine: Any) -> None:
    one, two = Desk(), Desk(name="other")
    front = Agent[Any](name="front", model=Turns("done"), handoffs=[one.agent, two.agent])
    store = RunStateStore(front)
    state = (await run_agent(front, "Hi")).to_state()
    await store.save(state)
    two.agent.name = "desk"
    for refused in (store.save(state), store.load()):
        with pytest.raises(SnapshotMismatchError, match="two agents of the name 'desk'"):
            await refused
    two.agent.name = "other"
    assert (await run_agent(front, await store.load())).output == "done"


# Contexts


@dataclasses.dataclass
class Cart:
    """A context."""

    owner: str
    items: list[Any] = dataclasses.field(default_factory=list)


class Basket(BaseModel):
    """A context of pydantic."""

    owner: str
    _secret: str = "none"


class Opaque:
    """A context that only its program can write."""

    def __init__(self, owner: str) -> None:
        self.owner = owner


async def test_contexts_of_the_registered_type_come_back(engine: Any) -> None:
    for context in (Cart("ada", [1, {"a": None}]), Basket(owner="ada"), {"owner": "ada", "n": [1.5, True]}):
        desk = Desk()
        if not isinstance(context, dict):
            forget_agents()
            register_agents(desk.agent, context_type=type(context))
        store = await desk.interrupted(context=context)
        result = await run_agent(desk.agent, await approved(store))
        assert (result.output, result.context_wrapper.context) == ("done", context)


async def test_a_context_comes_back_by_its_own_serializers(engine: Any) -> None:
    desk = Desk()
    result = await Runner.run(
        Agent(name="desk", model=Turns(function_call("refund", {"order": "7"}, call_id="c1")), tools=desk.agent.tools),
        "Refund", context=Opaque("ada"),
    )  # fmt: skip
    store = RunStateStore(
        desk.agent, context_serializer=lambda context: {"who": context.owner},
        context_deserializer=lambda data: Opaque(data["who"]),
    )  # fmt: skip
    await store.save(result.to_state())
    assert (await run_agent(desk.agent, await approved(store))).context_wrapper.context.owner == "ada"

    with pytest.raises(SnapshotMismatchError, match="Opaque") as refusal:
        await RunStateStore(desk.agent, store.session_id).load()
    assert "context_deserializer" in refusal.value.hint
    bad = RunStateStore(desk.agent, context_serializer=lambda context: {"who": {1, 2}})
    with pytest.raises(InvalidInputError, match=r"context\.who is a set"):
        await bad.save(result.to_state())


def with_secret() -> Basket:
    basket = Basket(owner="ada")
    basket._secret = "kept?"  # pyright: ignore[reportPrivateUsage] - the test is about it
    return basket


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"cart": {"items": [1, 2, object()]}}, r"context\.cart\.items\[2\]"),
        ({"when": {1: "x"}}, r"context\.when has the key 1"),
        ({"price": float("nan")}, r"context\.price"),
        (Cart("ada", [{"x": object()}]), r"context\.items\[0\]\.x"),
        (with_secret(), r"context\._secret"),
        (Opaque("ada"), "Opaque"),
    ],
)
async def test_what_json_cannot_keep_is_refused_at_save_with_its_field(engine: Any, context: Any, field: str) -> None:
    with pytest.raises(InvalidInputError, match=field):
        await Desk().interrupted(session_id="refused", context=context)
    assert engine.query("select 1 from timestep.run_states where session_id = 'refused'") == []


# Other processes

PROGRAM = """
    import asyncio, os, sys
    from agents import Agent, function_tool
    from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
    from timestep import RunStateStore, SnapshotAlreadyResumed, run_agent, run_agent_workflow

    @function_tool(needs_approval=True)
    async def refund(order: str) -> str:
        with open("refunds", "a") as file:
            file.write(order + "\\n")
        if os.path.exists("hang"):
            print("hanging", flush=True)
            await asyncio.sleep(600)
        return "refunded"

    class Says(ScriptedModel):
        async def get_response(self, *args, **kwargs):
            given = kwargs["input"] if "input" in kwargs else args[1]
            has_called = any("call_id" in item for item in given if isinstance(item, dict))
            step = assistant_message("done") if has_called else function_call("refund", {"order": "7"}, call_id="c1")
            self.enqueue(ModelStep(output=[step]))
            return await super().get_response(*args, **kwargs)

    async def main():
        agent = Agent(name="desk", model=Says([]), tools=[refund])
        store = RunStateStore("state.json", agent) if sys.argv[1] == "file" else RunStateStore(agent, sys.argv[1])
        try:
            run_state = await store.load()
            print("loaded", flush=True)
        except FileNotFoundError:
            run_state = [{"role": "user", "content": "Refund"}]
        if "wait" in sys.argv:
            print("ready", flush=True)
            sys.stdin.readline()
        if not isinstance(run_state, list):
            for item in run_state.get_interruptions():
                run_state.approve(item)
        run = run_agent_workflow if "durable" in sys.argv and not isinstance(run_state, list) else run_agent
        try:
            result = await run(agent, run_state)
        except SnapshotAlreadyResumed:
            print("refused")
            return
        if "unsaved" not in sys.argv:
            await store.save(result.to_state())
        print("output", result.output)
        await store.close()

    asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path, engine: Any) -> Any:
    (tmp_path / "app.py").write_text(textwrap.dedent(PROGRAM))

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "app.py", *words], cwd=tmp_path, env=os.environ, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    start.folder = tmp_path  # type: ignore[attr-defined]
    return start


def ends(process: subprocess.Popen[str]) -> list[str]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.split("\n")[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["a-session", "file"])
def test_of_two_processes_that_resume_at_the_same_moment_one_is_refused(program: Any, where: str) -> None:
    assert ends(program(where)) == ["output None"]
    both = [program(where, "wait") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["loaded\n", "ready\n"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(line for process in both for line in ends(process)) == ["output done", "refused"]
    assert (program.folder / "refunds").read_text() == "7\n"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["killed-session", "file"])
def test_the_documented_program_goes_on_when_it_is_started_again_after_kill_9(program: Any, where: str) -> None:
    assert ends(program(where)) == ["output None"]
    (program.folder / "hang").touch()
    killed = program(where)
    assert killed.stdout is not None
    assert [killed.stdout.readline(), killed.stdout.readline()] == ["loaded\n", "hanging\n"]
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (program.folder / "hang").unlink()

    assert ends(program(where)) == ["loaded", "output done"]
    assert ends(program(where)) == ["loaded", "output done"]  # a finished state: nothing runs
    assert (program.folder / "refunds").read_text() == "7\n7\n"  # a plain run repeats what it had not recorded


@pytest.mark.slow
def test_of_two_durable_resumes_in_two_processes_one_is_refused(program: Any) -> None:
    where = "two-durable"
    assert ends(program(where)) == ["output None"]
    both = [program(where, "durable", "wait", "unsaved") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["loaded\n", "ready\n"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(line for process in both for line in ends(process)) == ["output done", "refused"]
    assert (program.folder / "refunds").read_text() == "7\n"


@pytest.mark.slow
def test_a_program_that_is_started_again_has_the_durable_run_that_it_had_started(
    program: Any, new_database: Any, journal_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, application = "killed-durable", new_database()
    monkeypatch.setenv("TIMESTEP_APP_NAME", application)  # where no other executor takes the run over
    assert ends(program(where)) == ["output None"]
    (program.folder / "hang").touch()
    killed = program(where, "durable", "unsaved")
    assert killed.stdout is not None
    assert [killed.stdout.readline(), killed.stdout.readline()] == ["loaded\n", "hanging\n"]
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (program.folder / "hang").unlink()

    assert ends(program(where, "durable")) == ["loaded", "output done"]
    runs = journal_of(application).query(
        "select r.id from timestep.runs r join timestep.run_states s on s.resumed_by = r.id where s.session_id = %s",
        where,
    )
    assert len(runs) == 1
