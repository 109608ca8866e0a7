"""The events of a step: of each attempt, and of a stream that breaks off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from agents import Agent
from agents.testing import ModelStep, ScriptedModel, assistant_message
from talking_model import TWICE, WHOLE, TalkingModel, clerk, read, told

from timestep import run_agent, run_agent_workflow, stream_run
from timestep.client.events import Event
from timestep.durable.start import read_result

pytestmark = pytest.mark.usefixtures("engine")


async def test_a_model_that_is_asked_again_starts_its_turn_over(engine: Any, new_id: str) -> None:
    is_seen = asyncio.Event()

    async def until_seen() -> None:
        if model.answers:  # it is cut when the reader has had its first words
            await is_seen.wait()

    model = TalkingModel([None, "Three four"], until_seen)
    agent = Agent(name="assistant", model=model, model_settings=TWICE)
    running = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True))
    live: list[Event] = []
    async with aclosing(stream_run(new_id)) as events:
        async for event in events:
            live.append(event)
            is_seen.set()
    await running
    late, raw = await read(new_id), await read(new_id, raw=True)

    assert told(live) == ["text_delta One", "restarted", *told(late)]
    assert told(late) == ["text_delta Three four", "turn_finished", "run_finished succeeded"]
    assert {event["attempt"] for event in late if "number" in event} == {"1.1"}
    assert told(raw)[0].startswith("text_delta One two")
    [restarted] = [event for event in live if event["type"] == "restarted"]
    assert (restarted["step"], restarted["attempt"], restarted["turn"]) == ("model_turn:1:assistant", "1.1", 1)
    again = await read(new_id, live[0]["offset"] + 1)  # one that reconnects has had words of the first attempt too
    assert told(again) == ["restarted", *told(late)]


async def test_both_results_have_stream_events(engine: Any, new_id: str) -> None:
    durable = await run_agent_workflow(clerk(), "Go", workflow_id=new_id, stream=True)
    plain = await run_agent(
        Agent(name="plain", model=TalkingModel(["Hello there"])), "Go", stream=True, result_processor=None
    )

    assert told([event async for event in durable.stream_events()]) == WHOLE[:5]
    assert [event.type async for event in plain.stream_events()][-1] == "run_item_stream_event"
    recorded = await read_result(new_id)
    assert told([event async for event in recorded.stream_events()]) == WHOLE[:5]


async def test_a_broken_off_stream_of_events_leaves_no_model_step_unheard(engine: Any, new_id: str) -> None:
    """The scripted model streams no text while it calls tools: the turns are told all the same."""
    agent = Agent(
        name="assistant",
        model=ScriptedModel([ModelStep.stream([]), [assistant_message("whole")]]),
        model_settings=TWICE,
    )
    await run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True)

    assert told(await read(new_id)) == ["text_delta whole", "turn_finished", "run_finished succeeded"]
