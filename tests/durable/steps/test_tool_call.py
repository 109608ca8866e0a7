"""Tool calls as steps: order, names, parallel, timeouts, failures, what a tool knows of its call."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import pytest
from agents import Agent, ModelBehaviorError, RunContextWrapper, RunHooks, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext

from timestep import (
    Session,
    current_tool_call,
    register_agents,
    run_agent,
    run_agent_workflow,
)
from timestep.errors import UnsupportedError


def asks(tools: list[Any], *turns: list[Any], name: str = "assistant") -> Agent[Any]:
    """An agent whose model asks for these calls, turn by turn, and then answers `done`."""
    return Agent(name=name, tools=tools, model=ScriptedModel([*turns, [assistant_message("done")]]))


def outputs(agent: Agent[Any]) -> list[Any]:
    """What the model was told about its calls at last."""
    items = agent.model.last_call.input
    return [item["output"] for item in items if item.get("type") == "function_call_output"]


async def test_calls_of_a_turn_run_in_parallel_and_are_steps_in_the_model_s_order(engine: Any, new_id: str) -> None:
    met, meeting = [], threading.Barrier(2, timeout=30)
    second_is_done = asyncio.Event()

    @function_tool
    def slow_sync(word: str) -> str:
        meeting.wait()
        met.append(word)
        return word

    @function_tool
    async def first_to_begin() -> str:
        await second_is_done.wait()
        return "first"

    @function_tool
    async def second_to_begin() -> str:
        second_is_done.set()
        return "second"

    agent = asks(
        [slow_sync, first_to_begin, second_to_begin],
        [
            function_call("first_to_begin", {}, call_id="c1"),
            function_call("slow_sync", {"word": "a"}, call_id="c2"),
            function_call("second_to_begin", {}, call_id="c3"),
            function_call("slow_sync", {"word": "b"}, call_id="c4"),
        ],
    )

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert sorted(met) == ["a", "b"]
    assert outputs(agent) == ["first", "a", "second", "b"]
    assert engine.steps(new_id) == [
        "model_turn:1:assistant",
        "tool_call:1:first_to_begin:c1",
        "tool_call:1:slow_sync:c2",
        "tool_call:1:second_to_begin:c3",
        "tool_call:1:slow_sync:c4",
        "model_turn:2:assistant",
    ]


async def test_step_ids_do_not_depend_on_which_call_begins_first(engine: Any, new_id: str) -> None:
    second_has_run = asyncio.Event()

    class FirstWaits(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            if tool.name == "first":
                await second_has_run.wait()

    @function_tool
    async def first() -> str:
        return "1"

    @function_tool
    async def second() -> str:
        second_has_run.set()
        return "2"

    agent = asks([first, second], [function_call("first", {}, call_id="c1"), function_call("second", {}, call_id="c2")])
    register_agents(agent, hooks=FirstWaits())

    await run_agent_workflow("assistant", "Go", workflow_id=new_id)

    assert engine.steps(new_id)[1:3] == ["tool_call:1:first:c1", "tool_call:1:second:c2"]


async def test_a_call_that_the_model_repeats_with_its_id_is_taken_as_in_a_plain_run(engine: Any, new_id: str) -> None:
    ran = []

    @function_tool
    def count() -> str:
        ran.append(1)
        return f"call {len(ran)}"

    turns = [[function_call("count", {}, call_id="call_0")] for _ in range(3)]
    plain, durable = asks([count], *turns), asks([count], *turns)

    await Runner.run(plain, "Count")
    ran_plain = ran.copy()
    ran.clear()
    await run_agent_workflow(durable, "Count", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert ran == ran_plain
    assert outputs(durable) == outputs(plain)
    assert replayed.output == "done"


@pytest.mark.parametrize("is_one_turn", [True, False], ids=["one turn", "two turns"])
async def test_one_id_for_two_different_calls_is_refused_as_in_a_plain_run(is_one_turn: bool, new_id: str) -> None:
    @function_tool
    def note(word: str) -> str:
        return word

    calls = [
        function_call("note", {"word": "a"}, call_id="same", item_id="i1"),
        function_call("note", {"word": "b"}, call_id="same", item_id="i2"),
    ]
    turns = [calls] if is_one_turn else [[call] for call in calls]

    for _ in range(2):
        with pytest.raises(ModelBehaviorError, match=r"reused a .*tool call ID"):
            await run_agent_workflow(asks([note], *turns), "Note", workflow_id=new_id)


async def test_a_time_limit_of_a_tool_is_inside_its_step(engine: Any, new_id: str) -> None:
    began = []

    @function_tool(timeout=0.05)
    async def hang() -> str:
        began.append(1)
        await asyncio.Event().wait()
        return "never"

    agent = asks([hang], [function_call("hang", {}, call_id="c1")])

    await run_agent_workflow(agent, "Go", workflow_id=new_id)
    copy, replayed = await engine.replay(new_id)

    assert "timed out" in outputs(agent)[0]
    assert "timed out" in engine.output(new_id, "tool_call:1:hang:c1")["ok"]
    assert replayed.output == "done"
    assert engine.steps(copy) == engine.steps(new_id)
    assert began == [1]


async def test_a_failing_tool_tells_the_model_and_the_run_goes_on(engine: Any, new_id: str) -> None:
    def tell(wrapper: RunContextWrapper[Any], error: Exception) -> str:
        return f"failed: {error}"

    @function_tool(failure_error_function=tell)
    def fail() -> str:
        raise ValueError("no such order")

    agent = asks([fail], [function_call("fail", {}, call_id="c1")])

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "done"
    assert outputs(agent) == ["failed: no such order"]
    assert "no such order" in engine.output(new_id, "tool_call:1:fail:c1")["ok"]


async def test_current_tool_call_names_run_call_turn_and_attempt(new_id: str) -> None:
    seen = []

    @function_tool
    def look() -> str:
        seen.append(current_tool_call())
        return "ok"

    @function_tool
    async def look_async() -> str:
        seen.append(current_tool_call())
        return "ok"

    agent = asks(
        [look, look_async], [function_call("look", {}, call_id="c1")], [function_call("look_async", {}, call_id="c2")]
    )

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert [dataclasses.asdict(call) for call in seen] == [
        {"run_id": new_id, "call_id": "c1", "tool": "look", "turn": 1, "attempt": 1,
         "idempotency_key": f"{new_id}:1:c1"},
        {"run_id": new_id, "call_id": "c2", "tool": "look_async", "turn": 2, "attempt": 1,
         "idempotency_key": f"{new_id}:2:c2"},
    ]  # fmt: skip


async def test_there_is_no_current_call_outside_a_tool(new_id: str) -> None:
    with pytest.raises(UnsupportedError, match="no current tool call") as found:
        current_tool_call()
    assert "inside the body of a tool" in found.value.hint


async def test_a_plain_run_has_no_current_call() -> None:
    seen = []

    @function_tool
    def look() -> str:
        try:
            return current_tool_call().run_id
        except UnsupportedError as error:
            seen.append(error.message)
            raise

    await run_agent(asks([look], [function_call("look", {}, call_id="c1")]), "Go")

    assert seen == ["There is no current tool call here."]


async def test_an_unknown_tool_is_the_sdk_s_error(new_id: str) -> None:
    agent = asks([], [function_call("nowhere", {}, call_id="c1")])

    for _ in range(2):
        with pytest.raises(ModelBehaviorError, match="nowhere"):
            await run_agent_workflow(agent, "Go", workflow_id=new_id)


async def test_invalid_json_arguments_tell_the_model_and_the_run_goes_on(engine: Any, new_id: str) -> None:
    @function_tool
    def add(one: int, other: int) -> int:
        return one + other

    agent = asks(
        [add], [function_call("add", '{"one": 1, ', call_id="c1")], [function_call("add", '{"one": "x"}', call_id="c2")]
    )

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "done"
    assert len(outputs(agent)) == 2
    assert all("error" in text.lower() for text in outputs(agent))
    assert len([step for step in engine.steps(new_id) if "tool_call" in step]) == 2


async def test_custom_data_of_a_tool_is_there_again_after_a_replay(engine: Any, new_id: str) -> None:
    @function_tool
    def look(context: ToolContext[Any]) -> str:
        return context.tool_call_id

    agent = asks([look], [function_call("look", {}, call_id="c1")])

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert outputs(agent) == ["c1"]


async def test_tools_rows_hold_agent_arguments_result_and_times(engine: Any, new_id: str) -> None:
    @function_tool
    def add(one: int, other: int) -> dict[str, int]:
        return {"sum": one + other}

    agent = asks([add], [function_call("add", {"one": 1, "other": 2}, call_id="c1")])

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    [row] = engine.query("select * from timestep.tool_calls where run_id = %s", new_id)
    assert (row["call_key"], row["segment"], row["agent"], row["tool"]) == ("1:c1", 1, "assistant", "add")
    assert (row["call_id"], row["arguments"], row["attempt"]) == ("c1", '{"one":1,"other":2}', 1)
    assert (row["result"], row["error"]) == ({"sum": 3}, None)
    assert row["started_at"] <= row["finished_at"]


@pytest.mark.parametrize(
    "call_id", ["a\x00b", "\ud800", "x" * 10_000, "a:b/c#d%e", "注文", " "], ids=lambda text: ascii(text)[:12]
)
async def test_any_call_id_of_a_provider_is_stored(engine: Any, call_id: str, new_id: str) -> None:
    seen = []

    @function_tool
    def look() -> str:
        seen.append(current_tool_call().call_id)
        return "seen"

    agent = asks([look], [function_call("look", {}, call_id=call_id)])

    live = await run_agent_workflow(agent, "Go", f"s-{new_id}", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.output == replayed.output == "done"
    assert seen == [call_id]
    assert engine.value("select count(*) from timestep.tool_calls where run_id = %s", new_id) == 1
    assert len(await Session(f"s-{new_id}").get_items()) >= 4
