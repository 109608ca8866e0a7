"""Agents used as tools: their turns and tools are steps of the run, nested and in parallel."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, Model, ModelResponse, function_tool
from agents.testing import assistant_message, function_call
from agents.usage import Usage

from timestep import current_tool_call, run_agent_workflow


class Deciding(Model):
    """A model that decides from its input alone: first these calls, then an answer with what they returned."""

    def __init__(self, name: str, *calls: Any) -> None:
        self.name, self.calls, self.count = name, calls, 0

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.count += 1
        found = [
            item["output"] for item in input if isinstance(item, dict) and item.get("type") == "function_call_output"
        ]
        output = (
            list(self.calls)
            if self.calls and not found
            else [assistant_message(f"{self.name}({','.join(map(str, found))})")]
        )
        return ModelResponse(
            output=output, usage=Usage(requests=1, input_tokens=1, output_tokens=1, total_tokens=2), response_id=None
        )

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def tree(keys: list[str], *, barrier: asyncio.Barrier | None = None) -> tuple[Agent[Any], list[Deciding]]:
    """Three levels: `top` asks two `middle`s at once, each asks two `leaf`s at once, each calls two tools at once."""
    models: list[Deciding] = []

    @function_tool
    async def work() -> str:
        keys.append(current_tool_call().idempotency_key)
        if barrier is not None:
            await barrier.wait()
        return "w"

    @function_tool
    def rest() -> str:
        keys.append(current_tool_call().idempotency_key)
        return "r"

    def make(name: str, tools: list[Any], *calls: Any) -> Agent[Any]:
        models.append(Deciding(name, *calls))
        return Agent(name=name, tools=tools, model=models[-1])

    leaf = make(
        "leaf", [work, rest], function_call("work", {}, call_id="call_0"), function_call("rest", {}, call_id="call_1")
    )
    leaf_tool = leaf.as_tool("ask_leaf", "Ask a leaf")
    middle = make(
        "middle", [leaf_tool],
        function_call("ask_leaf", {"input": "a"}, call_id="call_0"),
        function_call("ask_leaf", {"input": "b"}, call_id="call_1"),
    )  # fmt: skip
    middle_tool = middle.as_tool("ask_middle", "Ask a middle")
    top = make(
        "top", [middle_tool, work],
        function_call("ask_middle", {"input": "x"}, call_id="call_0"), function_call("work", {}, call_id="call_1"),
        function_call("ask_middle", {"input": "y"}, call_id="call_2"),
    )  # fmt: skip
    return top, models


LEAF = "leaf(w,r)"
MIDDLE = f"middle({LEAF},{LEAF})"
ANSWER = f"top({MIDDLE},w,{MIDDLE})"


async def test_three_levels_in_parallel_are_steps_of_one_run_with_unique_names_and_keys(
    engine: Any, new_id: str
) -> None:
    keys: list[str] = []
    top, _ = tree(keys, barrier=asyncio.Barrier(5))

    result = await run_agent_workflow(top, "Go", workflow_id=new_id)

    steps = engine.steps(new_id)
    assert result.output == ANSWER
    assert len(steps) == len(set(steps)) == 23
    assert len(keys) == len(set(keys)) == 9
    assert all(key.startswith(f"{new_id}:1:call_") for key in keys)
    assert f"{new_id}:1:call_0/1:call_1/1:call_0" in keys
    assert "1:call_2/1:call_0/tool_call:1:work:call_0" in steps
    assert result.usage.requests == engine.run(new_id)["requests"] == 14
    assert engine.value("select count(*) from timestep.tool_calls where run_id = %s", new_id) == 9


async def test_a_replay_runs_no_model_and_no_tool_again(engine: Any, new_id: str) -> None:
    keys: list[str] = []
    top, models = tree(keys)

    await run_agent_workflow(top, "Go", workflow_id=new_id)
    calls, count = [model.count for model in models], len(keys)
    copy, replayed = await engine.replay(new_id)

    assert replayed.output == ANSWER
    assert [model.count for model in models] == calls
    assert len(keys) == count
    assert engine.steps(copy) == engine.steps(new_id)


async def test_from_any_step_on_only_what_was_not_recorded_runs(engine: Any, new_id: str) -> None:
    keys: list[str] = []
    top, models = tree(keys)
    await run_agent_workflow(top, "Go", workflow_id=new_id)
    names = engine.steps(new_id)

    for recorded in range(1, len(names), 4):
        keys.clear()
        before = sum(model.count for model in models)
        copy, replayed = await engine.replay(new_id, steps=recorded)
        turns = sum("model_turn" in name for name in names[recorded:])

        assert replayed.output == ANSWER
        assert sorted(engine.steps(copy)) == sorted(names)
        assert sum(model.count for model in models) - before == turns
        assert len(keys) == sum("tool_call" in name for name in names[recorded:])


async def test_a_single_sub_agent_goes_on_with_the_steps_of_its_caller(engine: Any, new_id: str) -> None:
    inner = Agent(name="inner", model=Deciding("inner"))
    outer = Agent(
        name="outer",
        tools=[inner.as_tool("ask", "Ask")],
        model=Deciding("outer", function_call("ask", {"input": "x"}, call_id="call/0:#%")),
    )

    live = await run_agent_workflow(outer, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.output == replayed.output == "outer(inner())"
    assert engine.steps(new_id) == [
        "model_turn:1:outer", "1:call%2F0%3A%23%25/model_turn:1:inner", "model_turn:2:outer",
    ]  # fmt: skip


async def test_a_sub_agent_that_fails_tells_its_caller_and_the_replay_says_the_same(engine: Any, new_id: str) -> None:
    class Broken(Deciding):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            self.count += 1
            raise RuntimeError("no power")

    broken = Broken("inner")
    inner = Agent(name="inner", model=broken)
    outer = Agent(
        name="outer",
        tools=[inner.as_tool("ask", "Ask")],
        model=Deciding("outer", function_call("ask", {"input": "x"}, call_id="c1")),
    )

    live = await run_agent_workflow(outer, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.output == replayed.output
    assert live.output.startswith("outer(")
    assert broken.count == 1
