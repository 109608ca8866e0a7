"""Readers of a run: each has the whole history, each event once, from any offset."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, ModelBehaviorError
from agents.testing import ScriptedModel, assistant_message, function_call
from talking_model import WHOLE, TalkingModel, clerk, look, numbers, read, refund, told

from timestep import queue_agent_workflow, register_agents, run_agent_workflow, stream_run
from timestep.client.decide import approve
from timestep.client.events import Event, _Attempts
from timestep.client.runs import resume_run
from timestep.durable.process.engine import engine as launched_engine
from timestep.errors import InvalidInputError

pytestmark = pytest.mark.usefixtures("engine")


async def test_a_reader_that_was_there_first_follows_over_an_approval_to_the_end(engine: Any, new_id: str) -> None:
    reading = asyncio.ensure_future(read(new_id))
    register_agents(clerk())
    queue_agent_workflow("clerk", "Go", workflow_id=new_id, stream=True)
    await asyncio.to_thread(engine.wait_for_status, new_id, "interrupted")
    await approve(new_id, "c2", by="alice")
    events = await reading

    assert told(events) == WHOLE
    [interrupted] = [event for event in events if event["type"] == "run_interrupted"]
    [asked] = interrupted["approvals"]
    assert (interrupted["reason"], asked["kind"], asked["tool"], asked["call_id"]) == (
        "approval", "approval", "refund", "c2",
    )  # fmt: skip
    assert [event["segment"] for event in events] == [1] * 5 + [2] * (len(events) - 5)
    assert events[-1]["reason"] is None


async def test_a_late_reader_has_the_same_history_and_offsets_count_over_the_run(engine: Any, new_id: str) -> None:
    await run_agent_workflow(clerk(), "Go", workflow_id=new_id, stream=True)
    await approve(new_id, "c2", by="alice")
    live = await read(new_id)
    late, raw = await read(new_id), await read(new_id, raw=True)

    assert told(live) == told(late) == told(raw) == WHOLE
    offsets = [event["offset"] for event in late if "number" in event]
    assert sorted(set(offsets)) == list(range(offsets[-1] + 1))
    [row] = engine.query("select * from timestep.segments where run_id = %s", new_id)
    second = [event["offset"] for event in late if event["segment"] == 2 and "number" in event]
    assert (row["number"], row["first_offset"], row["copied_entries"]) == (2, second[0], 0)


async def test_a_reader_that_reconnects_goes_on_where_it_was(engine: Any, new_id: str) -> None:
    await run_agent_workflow(clerk(), "Go", workflow_id=new_id, stream=True)
    await approve(new_id, "c2", by="alice")
    whole = await read(new_id)

    for number, event in enumerate(whole):
        if event["is_last"]:
            rest = await read(new_id, event["offset"] + 1)
            wanted = [each for each in whole[number + 1 :] if "number" in each]
            assert [each for each in rest if "number" in each] == wanted
            assert rest[-1] == whole[-1]
    assert told(await read(new_id, 1000)) == ["run_finished succeeded"]
    with pytest.raises(InvalidInputError):
        await read(new_id, -1)


async def test_a_reader_of_a_run_that_waits_is_told_so_again_when_it_reconnects(engine: Any, new_id: str) -> None:
    result = await run_agent_workflow(clerk(), "Go", workflow_id=new_id, stream=True)
    stream = stream_run(new_id, 50)

    assert (await anext(stream))["type"] == "run_interrupted"
    await stream.aclose()
    assert told([event async for event in result.stream_events()]) == WHOLE[:5]


async def test_what_a_run_without_a_stream_did_is_told_step_by_step(engine: Any, new_id: str) -> None:
    agent = Agent(
        name="quiet",
        model=ScriptedModel([[function_call("look", {"thing": "sea"}, call_id="c1")], [assistant_message("seen")]]),
        tools=[look],
    )
    reading = asyncio.ensure_future(read(new_id))
    result = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    live, late = await reading, await read(new_id)

    assert live == late == await read(new_id, raw=True)
    assert [event.get("step") for event in late] == [
        "model_turn:1:quiet", "tool_call:1:look:c1", "model_turn:2:quiet", None,
    ]  # fmt: skip
    assert [(event["type"], event["offset"]) for event in late] == [
        ("step", 0), ("step", 1), ("step", 2), ("run_finished", 2),
    ]  # fmt: skip
    assert late[0]["kind"] == "model_turn"
    assert await read(new_id, 2) == late[2:]
    assert [event async for event in result.stream_events()] == late


async def test_a_run_without_a_stream_is_followed_over_an_approval(engine: Any, new_id: str) -> None:
    asks = [[function_call("refund", {"order": 7}, call_id="c2")], [assistant_message("done")]]
    register_agents(Agent(name="clerk", model=ScriptedModel(asks), tools=[refund]))
    reading = asyncio.ensure_future(read(new_id))
    await run_agent_workflow("clerk", "Go", workflow_id=new_id)
    await approve(new_id, "c2", by="alice")

    live = await reading
    assert [event.get("step", event["type"]) for event in live] == [
        "model_turn:1:clerk", "run_interrupted", "tool_call:1:refund:c2", "model_turn:2:clerk", "run_finished",
    ]  # fmt: skip
    assert await read(new_id) == live
    assert engine.value("select count(*) from timestep.segments where run_id = %s", new_id) == 0


async def test_parallel_sub_agents_share_a_stream_and_each_event_is_there_once(engine: Any, new_id: str) -> None:
    texts = {name: " ".join(f"{name}{number}" for number in range(30)) for name in ("a", "b", "c")}
    tools = [
        Agent(name=name, model=TalkingModel([text], lambda: asyncio.sleep(0.002))).as_tool(name, "Asks it.")
        for name, text in texts.items()
    ]
    asks = [[function_call(name, {"input": "go"}, call_id=name) for name in texts], "All said"]
    main = Agent(name="main", model=TalkingModel(asks), tools=tools)
    await run_agent_workflow(main, "Go", workflow_id=new_id, stream=True)
    events = await read(new_id)

    for name, text in texts.items():
        own = [event for event in events if event.get("path") == f"1:{name}/"]
        assert {event["step"] for event in own} == {f"1:{name}/model_turn:1:{name}"}
        assert "".join(event["text"] for event in own if event["type"] == "text_delta") == f"{text} "
        assert [event["number"] for event in own] == list(range(1, len(own) + 1))
    assert len(set(numbers(events))) == len(numbers(events)) == len(events) - 1


async def test_a_failed_run_that_is_resumed_goes_on_in_its_stream_without_the_copied_events(
    engine: Any, new_id: str
) -> None:
    model = TalkingModel(
        [[function_call("look", {"thing": "sea"}, call_id="c1")], ModelBehaviorError("broken"), "Seen"]
    )
    register_agents(Agent(name="assistant", model=model, tools=[look]))
    with pytest.raises(ModelBehaviorError):
        await run_agent_workflow("assistant", "Go", workflow_id=new_id, stream=True)
    failed = await read(new_id)
    launched = launched_engine()
    await asyncio.to_thread(resume_run, launched.connector, new_id)
    live, late, raw = await read(new_id), await read(new_id), await read(new_id, raw=True)

    begun = ["turn_finished", "tool_started look", "tool_finished look"]
    assert told(failed) == [*begun, "text_delta One two", "run_finished failed"]
    assert told(late) == [*begun, "text_delta Seen", "turn_finished", "run_finished succeeded"]
    assert told(live) == [*told(failed)[:-1], "restarted", *told(late)[3:]]
    assert len(set(numbers(raw))) == len(numbers(raw)) == len(numbers(live))
    [row] = engine.query("select * from timestep.segments where run_id = %s", new_id)
    assert row["first_offset"] == failed[-1]["offset"] + 1
    copied = "select count(*) from dbos.streams where workflow_uuid = %s || '~2' and function_id < %s"
    assert row["copied_entries"] == engine.value(copied, new_id, 3) > 0
    assert "restarted" in told(await read(new_id, failed[-1]["offset"] + 1))
    assert engine.steps(f"{new_id}~2").count("DBOS.closeStream") == 1


async def test_a_fork_that_leaves_a_gap_among_the_copied_entries_is_read_on(engine: Any, new_id: str) -> None:
    """Steps that ran in parallel write in any order, and a fork copies the entries of the first ones alone."""
    model = TalkingModel(
        [[function_call("look", {"thing": "sea"}, call_id="c1")], ModelBehaviorError("broken"), "Seen"]
    )
    register_agents(Agent(name="assistant", model=model, tools=[look]))
    with pytest.raises(ModelBehaviorError):
        await run_agent_workflow("assistant", "Go", workflow_id=new_id, stream=True)
    first = 'workflow_uuid = %s and "offset" = 0'
    [gap] = engine.query(f"delete from dbos.streams where {first} returning *", new_id)
    launched = launched_engine()
    await asyncio.to_thread(resume_run, launched.connector, new_id)
    names = ", ".join(f'"{name}"' for name in gap)
    engine.query(f"insert into dbos.streams ({names}) values ({', '.join(['%s'] * len(gap))})", *gap.values())
    await read(new_id)

    assert told(await read(new_id))[-3:] == ["text_delta Seen", "turn_finished", "run_finished succeeded"]
    [row] = engine.query("select copied_entries from timestep.segments where run_id = %s", new_id)
    copied = "select count(*) from dbos.streams where workflow_uuid = %s || '~2' and function_id < 3"
    assert engine.value(copied, new_id) == row["copied_entries"] - 1 > 0


def stored(step: str, attempt: str, number: int, segment: int = 1) -> Event:
    return {"type": "text_delta", "step": step, "segment": segment, "attempt": attempt, "number": number, "offset": 0}


@pytest.mark.parametrize(
    ("batches", "taken"),
    [
        pytest.param([[("a", "1.0", 1), ("a", "2.0", 1)]], [("a", "2.0", 1)], id="an older one is left out"),
        pytest.param(
            [[("a", "1.0", 1)], [("a", "2.0", 1)]], [("a", "1.0", 1), "restarted", ("a", "2.0", 1)], id="live"
        ),
        pytest.param(
            [[("a", "2.0", 1)], [("a", "1.9", 2), ("a", "10.0", 1)]],
            [("a", "2.0", 1), "restarted", ("a", "10.0", 1)],
            id="attempts are numbers",
        ),
        pytest.param(
            [[("a", "2.0", 1), ("a", "1.0", 1, 2)]], [("a", "1.0", 1, 2)], id="the segment comes before the attempt"
        ),
        pytest.param(
            [[("a", "1.0", 1), ("a", "1.0", 1)], [("a", "1.0", 1), ("a", "1.0", 2)]],
            [("a", "1.0", 1), ("a", "1.0", 2)],
            id="an entry that is stored twice",
        ),
        pytest.param([[("a", "1.0", 1), ("b", "2.0", 1)]], [("a", "1.0", 1), ("b", "2.0", 1)], id="steps of their own"),
    ],
)
def test_the_newest_attempt_of_a_step_counts(batches: list[list[Any]], taken: list[Any]) -> None:
    attempts = _Attempts()
    found = [event for batch in batches for event in attempts.take([stored(*each) for each in batch])]

    expected = ["restarted" if each == "restarted" else stored(*each) for each in taken]
    assert ["restarted" if event["type"] == "restarted" else event for event in found] == expected
