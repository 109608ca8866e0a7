"""The writer of a stream: how often it writes, and that no event is lost or written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from agents import Agent
from agents.testing import function_call
from talking_model import TalkingModel, look

from timestep import run_agent_workflow, stream_run
from timestep.client.events import Event
from timestep.durable.journal import stream_writer
from timestep.durable.journal.stream_writer import BURST, COMMITS_PER_SECOND, Pace, StreamWriter

pytestmark = pytest.mark.usefixtures("engine")


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
