"""The events of `run_agent(stream=True)` are there after the call, as the documents show it, and as often as asked."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import consume_result, run_agent

pytestmark = pytest.mark.usefixtures("settings_of_module")


@function_tool
def look_up(order: int) -> str:
    """Look up an order."""
    return f"order {order} is on its way"


def clerk() -> Agent[Any]:
    model = ScriptedModel([[function_call("look_up", {"order": 7}, call_id="c1")], [assistant_message("It comes")]])
    return Agent(name="clerk", model=model, tools=[look_up])


async def events_of(result: Any) -> list[Any]:
    return [event async for event in result.stream_events()]


async def test_the_events_of_a_streamed_run_are_read_after_it_in_their_order_and_again() -> None:
    live = await run_agent(clerk(), "Where is order 7?", stream=True, result_processor=None)
    happened = [event.type for event in await events_of(live)]

    result = await run_agent(clerk(), "Where is order 7?", stream=True)
    events = await events_of(result)
    assert [event.type for event in events] == happened
    names = [event.name for event in events if event.type == "run_item_stream_event"]
    assert names == ["tool_called", "tool_output", "message_output_created"]
    assert await events_of(result) == events
    assert (result.final_output, result.is_complete) == ("It comes", True)


async def test_consuming_it_again_loses_no_event() -> None:
    result = await run_agent(clerk(), "Where is order 7?", stream=True)
    events = await events_of(result)
    assert await consume_result(result) is result
    assert await events_of(result) == events
    assert events


async def test_a_processor_of_the_callers_own_sees_each_event_once() -> None:
    seen: list[str] = []

    async def read(result: Any) -> None:
        seen.extend([event.type async for event in result.stream_events()])

    await run_agent(clerk(), "Where is order 7?", stream=True, result_processor=read)
    assert seen.count("run_item_stream_event") == 3
