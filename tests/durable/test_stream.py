"""The stream of a run: what is written and how often, and that every reader has the whole history, each event once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from agents import Agent, Model, ModelBehaviorError, ModelRetrySettings, ModelSettings, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseTextDeltaEvent,
)

from timestep import queue_agent_workflow, register_agents, run_agent, run_agent_workflow, stream_run
from timestep.client.decide import approve
from timestep.client.events import _Attempts
from timestep.client.runs import resume_run
from timestep.durable.journal import stream_writer
from timestep.durable.journal.stream_writer import BURST, COMMITS_PER_SECOND, Pace, StreamWriter
from timestep.durable.process.engine import engine as launched_engine
from timestep.durable.start import read_result
from timestep.errors import InvalidInputError

pytestmark = pytest.mark.usefixtures("engine")

Event = dict[str, Any]
TWICE = ModelSettings(retry=ModelRetrySettings(max_retries=2, backoff={"initial_delay": 0.001, "jitter": False}))


class TalkingModel(Model):
    """Speaks word by word and awaits `between`.

    `answers`: texts, lists of calls, an error after `One two`, or None, which breaks off there.
    """

    def __init__(self, answers: Sequence[Any], between: Any = None) -> None:
        self.answers, self.between = list(answers), between

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it only streams")

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = self.answers.pop(0)
        words = answer if isinstance(answer, str) else "" if isinstance(answer, list) else "One two"
        for word in words.split(" ") if words else []:
            yield delta(f"{word} ")
            if self.between is not None:
                await self.between()
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return
        output = [assistant_message(words)] if isinstance(answer, str) else answer
        final = Response.model_construct(id="r", output=output, usage=None)
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=final, sequence_number=0)


def delta(text: str) -> Any:
    return ResponseTextDeltaEvent.model_construct(
        type="response.output_text.delta", delta=text, item_id="i", output_index=0, content_index=0, sequence_number=0,
        logprobs=[],
    )  # fmt: skip


async def read(run_id: str, *args: Any, **kwargs: Any) -> list[Event]:
    return [event async for event in stream_run(run_id, *args, **kwargs)]


def told(events: Sequence[Event]) -> list[str]:
    """Events in short, joined text for joined text."""
    words = {"text_delta": "text", "tool_started": "tool", "tool_finished": "tool", "run_finished": "status"}
    shown = [(event["type"], str(event.get(words.get(event["type"], ""), ""))) for event in events]
    return [
        f"{kind} {''.join(text for _, text in group)}".strip() if kind == "text_delta" else kind_and_text
        for kind, groups in itertools.groupby(shown, key=lambda each: each[0])
        for group in [list(groups)]
        for kind_and_text in ([kind] if kind == "text_delta" else [f"{kind} {text}".strip() for _, text in group])
    ]


def numbers(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """What tells events apart, those that are stored."""
    return [(e["step"], e["segment"], e["attempt"], e["number"]) for e in events if "number" in e]


@function_tool
def look(thing: str) -> str:
    """Look at something."""
    return f"{thing} seen"


@function_tool(needs_approval=True)
def refund(order: int) -> str:
    """Pay an order back."""
    return f"order {order} is paid back"


def clerk(**options: Any) -> Agent[Any]:
    """Looks, asks before it pays, and answers."""
    model = TalkingModel(
        [
            [function_call("look", {"thing": "order"}, call_id="c1")],
            [function_call("refund", {"order": 7}, call_id="c2")],
            "It is paid back",
        ]
    )
    return Agent(name="clerk", model=model, tools=[look, refund], **options)


WHOLE = [
    "turn_finished",
    "tool_started look",
    "tool_finished look",
    "turn_finished",
    "run_interrupted",
    "tool_started refund",
    "tool_finished refund",
    "text_delta It is paid back",
    "turn_finished",
    "run_finished succeeded",
]


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


async def test_both_results_have_stream_events(engine: Any, new_id: str) -> None:
    durable = await run_agent_workflow(clerk(), "Go", workflow_id=new_id, stream=True)
    plain = await run_agent(
        Agent(name="plain", model=TalkingModel(["Hello there"])), "Go", stream=True, result_processor=None
    )

    assert told([event async for event in durable.stream_events()]) == WHOLE[:5]
    assert [event.type async for event in plain.stream_events()][-1] == "run_item_stream_event"
    recorded = await read_result(new_id)
    assert told([event async for event in recorded.stream_events()]) == WHOLE[:5]


async def test_text_that_waits_is_written_while_the_model_is_silent(engine: Any, new_id: str) -> None:
    goes_on = asyncio.Event()
    agent = Agent(name="assistant", model=TalkingModel(["One two"], goes_on.wait))
    running = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True))
    stream = stream_run(new_id)

    first = await anext(stream)
    assert (first["type"], first["text"]) == ("text_delta", "One ")
    assert engine.steps(new_id) == []
    goes_on.set()
    await stream.aclose()
    await running


async def test_every_event_of_a_step_is_stored_before_the_step(engine: Any, new_id: str) -> None:
    steps: list[tuple[str, list[str]]] = []

    async def note() -> None:
        stored = engine.query('select value from dbos.streams where workflow_uuid = %s order by "offset"', new_id)
        steps.append((",".join(engine.steps(new_id)), [row["value"] for row in stored]))

    tools = [look]
    asks = [[function_call("look", {"thing": "sea"}, call_id="c1")], "Well"]
    await run_agent_workflow(
        Agent(name="assistant", model=TalkingModel(asks, note), tools=tools), "Go", workflow_id=new_id, stream=True
    )

    recorded, values = steps[0]
    assert recorded == "model_turn:1:assistant,tool_call:1:look:c1"
    assert "tool_finished" in values[-1]


class Clock:
    """A time that only moves when somebody sleeps, or a commit takes its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def most_in_a_second(commits: Sequence[float]) -> int:
    return max(sum(1 for each in commits if start <= each < start + 1) for start in commits)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.04, 0.3])
def test_a_run_makes_at_most_20_commits_in_any_second_and_nothing_waits_for_long(seconds: float) -> None:
    clock, commits, waits = Clock(), [], []
    for _ in range(3):  # three busy times, with silence between
        pace = Pace(burst=BURST, now=clock.now) if not commits else pace  # noqa: F821
        for _ in range(60):
            wait = pace.seconds_to_wait(clock.now)
            waits.append(wait)
            clock.now += wait + 1e-9
            pace.begin(clock.now)
            commits.append(clock.now + seconds / 2)
            clock.now += seconds
            pace.end(clock.now)
        clock.now += 5

    assert most_in_a_second(commits) <= BURST + COMMITS_PER_SECOND == 19
    assert max(waits) <= 1 / COMMITS_PER_SECOND + 1e-6 < 0.07


async def test_however_fast_models_and_tools_talk_the_writer_keeps_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, commits, entries = Clock(), [], []

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    async def write(_: str, events: list[Event]) -> None:
        commits.append(clock.now)
        entries.append(events)

    monkeypatch.setattr(stream_writer.DBOS, "write_stream_async", write)
    monkeypatch.setattr(stream_writer.dbos_sdk, "is_in_step", lambda: True)
    writer = StreamWriter(clock=clock.monotonic, sleep=sleep)

    async def talk(step: str) -> None:
        for number in range(200):
            writer.add({"type": "text_delta", "step": step, "attempt": "1.0", "text": f"{number} "})
            await writer.flush()

    await asyncio.gather(*(talk(step) for step in ("a", "b", "c", "d")))
    await writer.settle()

    assert most_in_a_second(commits) <= 19
    for step in ("a", "b", "c", "d"):
        own = [event for entry in entries for event in entry if event["step"] == step]
        assert "".join(event["text"] for event in own) == "".join(f"{number} " for number in range(200))
        assert [event["number"] for event in own] == list(range(1, len(own) + 1))


async def test_a_write_that_fails_is_tried_again_with_what_came_since(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[list[Event]] = []
    failures = [ValueError("away")]

    async def write(_: str, events: list[Event]) -> None:
        if failures:
            raise failures.pop()
        entries.append(events)

    monkeypatch.setattr(stream_writer.DBOS, "write_stream_async", write)
    monkeypatch.setattr(stream_writer.dbos_sdk, "is_in_step", lambda: True)
    writer = StreamWriter()
    writer.add({"type": "tool_started", "step": "a", "attempt": "1.0"})
    with pytest.raises(ValueError, match="away"):
        await writer.flush()
    writer.add({"type": "tool_finished", "step": "a", "attempt": "1.0"})
    await writer.flush()

    assert [[event["number"] for event in entry] for entry in entries] == [[1, 2]]


async def test_a_cancelled_flush_loses_no_event_and_writes_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[list[Event]] = []
    is_writing, goes_on = asyncio.Event(), asyncio.Event()

    async def write(_: str, events: list[Event]) -> None:
        is_writing.set()
        await goes_on.wait()
        entries.append(events)

    monkeypatch.setattr(stream_writer.DBOS, "write_stream_async", write)
    monkeypatch.setattr(stream_writer.dbos_sdk, "is_in_step", lambda: True)
    writer = StreamWriter()
    writer.add({"type": "tool_started", "step": "a", "attempt": "1.0"})
    flushing = asyncio.ensure_future(writer.flush())
    await is_writing.wait()
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    writer.add({"type": "tool_started", "step": "b", "attempt": "1.0"})
    following = asyncio.ensure_future(writer.flush())
    await asyncio.sleep(0)
    goes_on.set()
    await following

    assert [[event["step"] for event in entry] for entry in entries] == [["a"], ["b"]]


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


async def test_a_broken_off_stream_of_events_leaves_no_model_step_unheard(engine: Any, new_id: str) -> None:
    """The scripted model streams no text while it calls tools: the turns are told all the same."""
    agent = Agent(
        name="assistant",
        model=ScriptedModel([ModelStep.stream([]), [assistant_message("whole")]]),
        model_settings=TWICE,
    )
    await run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True)

    assert told(await read(new_id)) == ["text_delta whole", "turn_finished", "run_finished succeeded"]
