"""Read the events of a run, from any process and any offset, over all of its segments and interruptions.

A run with a stream has written its events (`timestep.durable.journal.step_events`); each is an object with `type`,
`step`, `turn`, `path`, `segment`, `attempt`, `number`, and here with the `offset` of its entry in the run's stream.
Events that were written together share an offset; `is_last` is true for the last of them. For a run without a stream
there is one event `step` for each recorded step. The reader adds `run_interrupted` and `run_finished`, from the run's
row.

The rule for attempts: of the events with the same `step`, those of the newest `segment` and `attempt` count. What is
older was lost with its process, or failed and was tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import zip_longest
from typing import Any

from dbos import DBOSClient
from dbos import error as dbos_error

from timestep.client.connector import Connector
from timestep.client.runs import POLL_SECONDS, SETTLED, list_segment_steps
from timestep.errors import InvalidInputError, RunNotFoundError
from timestep.ids import STREAM_KEY, segment_id
from timestep.records import Approval, Step
from timestep.store.approvals import approvals_of_segment
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database
from timestep.store.runs import RunProgress, find_progress
from timestep.store.stream_segments import FIRST, StreamSegment, list_stream_segments
from timestep.words import FINISHED, RESTARTED, RUN_FINISHED, RUN_INTERRUPTED, STEP, kind_of_approval

WATCH_SECONDS = 1.0
"""How long a reader waits for an event before it looks whether the run goes on at all."""

JOURNAL_SECONDS = 0.25
"""How often the journal of a run without a stream is read."""

LONGEST_PAUSE_SECONDS = 0.5
"""How often at least the row of a run that waits for a person is read."""

Event = dict[str, Any]


async def stream_run(
    run_id: str,
    from_offset: int = 0,
    *,
    raw: bool = False,
    database: Database | None = None,
    client: DBOSClient | None = None,
) -> AsyncGenerator[Event]:
    """Yield the events of a run: those stored, then those to come, to its end.

    Works in any process and launches nothing; may be read again, and by many. It waits for a run that is about to be
    started, and goes on over interruptions and segments until the run has succeeded, failed or is cancelled. The
    shapes of the events are in docs/reference/events.md.

    Events of attempts that were replaced are left out. When a reader has had some of an attempt that is replaced then,
    `{"type": "restarted", "step": ...}` comes before the new ones: drop what you had of that step.

    Args:
        from_offset: The first offset that is wanted: after an event with `is_last` its `offset` plus one.
        raw: Yield every event as it is stored, without the rule for attempts.
        database: A database of the caller's; that of the process when absent.
        client: A client of DBOS for that database; one is connected and closed here when absent.

    Raises:
        InvalidInputError: the offset is negative.
    """
    if from_offset < 0:
        raise InvalidInputError(f"An offset is 0 or more, not {from_offset}.")
    async with aclosing(_read(run_id, from_offset, raw=raw, waits=True, database=database, client=client)) as events:
        async for event in events:
            yield event


async def stream_events(
    connector: Connector, run_id: str, from_offset: int = 0, *, raw: bool = False
) -> AsyncGenerator[Event]:
    """Yield the events of a run as `stream_run` does, over a connector."""
    client = await connector.database.run_whole(lambda: connector.dbos)
    events = stream_run(run_id, from_offset, raw=raw, database=connector.database, client=client)
    async with aclosing(events):
        async for event in events:
            yield event


async def stored_events(
    run_id: str, *, database: Database | None = None, client: DBOSClient | None = None
) -> AsyncGenerator[Event]:
    """Yield the events of a run that are stored, without waiting for more; else as `stream_run`."""
    async with aclosing(_read(run_id, 0, raw=False, waits=False, database=database, client=client)) as events:
        async for event in events:
            yield event


async def _read(
    run_id: str, from_offset: int, *, raw: bool, waits: bool, database: Database | None, client: DBOSClient | None
) -> AsyncGenerator[Event]:
    database = database or await open_current_database()
    async with _connected(database, client) as connected:  # first, so that a reader who was there early is ready
        progress = await _wait_for_row(database, run_id)
        source: _Stream | _Journal = _Journal(connected, run_id)
        if progress.is_streamed:
            source = _Stream(connected, run_id)
            await source.seek(from_offset)
        attempts = _Attempts()
        remembers = raw or not from_offset or isinstance(source, _Journal)
        waiting: list[Event] = []
        async with aclosing(_follow(source, database, run_id)) as entries:
            async for entry in entries:
                waiting += entry or ()
                if entry is not None:
                    continue
                if not remembers and any(map(_may_replace, waiting)):  # what the caller had before it reconnected
                    remembers = True
                    attempts.take([event async for event in _Stream(connected, run_id).before(from_offset)])
                for event in _marked(waiting if raw else attempts.take(waiting)):
                    if event["offset"] >= from_offset or "number" not in event:
                        yield event
                waiting = []
                if not waits:
                    return


async def _wait_for_row(database: Database, run_id: str) -> RunProgress:
    pause = _Pause()
    while (progress := await database.run_until_done(find_progress, run_id)) is None:
        await pause.wait()
    return progress


@contextlib.asynccontextmanager
async def _connected(database: Database, client: DBOSClient | None) -> AsyncGenerator[Connector]:
    connector = Connector(database, dbos=client)
    if client is not None:
        yield connector
        return
    await asyncio.to_thread(lambda: connector.dbos)
    is_left = False
    try:
        yield connector
    except GeneratorExit:
        is_left = True
        raise
    finally:
        closing = asyncio.get_running_loop().run_in_executor(None, connector.close)
        if not is_left:  # a reader that was left is closed without an await: others may be closing its inside already
            await closing


async def _follow(source: _Stream | _Journal, database: Database, run_id: str) -> AsyncGenerator[list[Event] | None]:
    """Yield the entries of a run to its end, and None where everything stored so far is out."""
    is_live, told, pause = False, None, _Pause()
    while True:
        progress = await database.run_until_done(find_progress, run_id)
        if progress is None:
            raise RunNotFoundError(f"The run {run_id!r} is not there any more.")
        if told is not None and progress == told:
            await pause.wait()
            continue
        told, pause = None, _Pause()
        is_over = progress.segment > source.segment or progress.status in SETTLED
        async with aclosing(source.entries(WATCH_SECONDS if is_live and not is_over else 0)) as entries:
            async for entry in entries:
                yield entry
                if is_live:
                    yield None
        if progress.segment > source.segment:
            asked = await database.run_until_done(approvals_of_segment, run_id, source.segment)
            if asked and not source.is_interruption_told:
                yield [_interrupted(source, asked)]
                if is_live:
                    yield None
            source.enter(source.segment + 1)
        elif progress.status in FINISHED:
            yield [_derived(source, RUN_FINISHED, status=progress.status, reason=progress.reason)]
            yield None
            return
        else:
            if progress.status == "interrupted":
                told, is_closed = progress, progress.closed_segment >= source.segment
                asked = await database.run_until_done(approvals_of_segment, run_id, source.segment) if is_closed else []
                source.is_interruption_told = is_closed
                yield [_interrupted(source, asked, reason=progress.reason)]
            if told is not None or not is_live:
                is_live = True
                yield None


class _Pause:
    """Waits between two looks at a row, longer the longer nothing happens."""

    def __init__(self) -> None:
        self._seconds = POLL_SECONDS

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds)
        self._seconds = min(1.02 * self._seconds, LONGEST_PAUSE_SECONDS)


class _Stream:
    """The stream of a run. `offset` is the next one to be read, in the segment `segment`."""

    def __init__(self, connector: Connector, run_id: str) -> None:
        self._connector, self._run_id = connector, run_id
        self.segment, self.offset, self.is_interruption_told = 1, 0, False
        self._begun: StreamSegment | None = FIRST
        self._has_ended = False
        self._pause = _Pause()

    async def seek(self, offset: int) -> None:
        """Go to an offset, in the segment that has it; one that is not written yet is in the newest."""
        known = (await self._segments()).values()
        begun = max((each for each in known if each.first_offset <= offset), key=lambda each: each.number)
        self.segment, self._begun, self.offset = begun.number, begun, offset

    def enter(self, segment: int) -> None:
        """Go on with the next segment."""
        self.segment, self._begun, self._has_ended, self.is_interruption_told = segment, None, False, False
        self._pause = _Pause()

    async def entries(self, seconds: float) -> AsyncGenerator[list[Event]]:
        """Yield the entries of the segment that are stored, and those that come with less than `seconds` between."""
        if self._begun is None:
            self._begun = (await self._segments()).get(self.segment)
        begun = self._begun
        if seconds and (begun is None or self._has_ended):  # not started, or the row does not say yet how it ended
            await self._pause.wait()
        if begun is None:
            return
        self.offset = max(self.offset, begun.first_offset)
        values = self._connector.dbos.read_stream_async(
            segment_id(self._run_id, self.segment),
            STREAM_KEY,
            offset=begun.copied_entries + self.offset - begun.first_offset,
            timeout_seconds=seconds,
        )
        try:
            async with aclosing(values):
                async for events in values:
                    self.offset += 1
                    yield [event | {"offset": self.offset - 1} for event in events]
            self._has_ended = True
        except dbos_error.DBOSStreamTimeoutError:
            pass
        except dbos_error.DBOSNonExistentWorkflowError:  # its row was first
            await asyncio.sleep(min(seconds, POLL_SECONDS))

    async def before(self, offset: int) -> AsyncGenerator[Event]:
        """Yield the events before an offset, as they are stored."""
        for begun in (await self._segments()).values():
            self.enter(begun.number)
            async with aclosing(self.entries(0)) as entries:
                async for entry in entries:
                    if entry[0]["offset"] >= offset:
                        return
                    for event in entry:
                        yield event

    async def _segments(self) -> dict[int, StreamSegment]:
        return {1: FIRST} | await self._connector.database.run_until_done(list_stream_segments, self._run_id)


class _Journal:
    """The recorded steps of a run without a stream, as entries of one event each, counted as they were completed."""

    def __init__(self, connector: Connector, run_id: str) -> None:
        self._connector, self._run_id = connector, run_id
        self.segment, self.offset, self.is_interruption_told = 1, 0, False
        self._seen: set[tuple[int, str, Any]] = set()

    def enter(self, segment: int) -> None:
        """Go on with the next segment."""
        self.segment, self.is_interruption_told = segment, False

    async def entries(self, seconds: float) -> AsyncGenerator[list[Event]]:
        """Yield the steps that are new; without one return after a while."""
        found = await asyncio.to_thread(list_segment_steps, self._connector, self._run_id, self.segment)
        steps = {(step.step_id, step.name, step.started_at): step for step in found}
        new = [step for identity, step in steps.items() if identity not in self._seen]  # without copies of a fork
        self._seen |= set(steps)
        for step in sorted(new, key=lambda step: (step.finished_at is None, step.finished_at, step.step_id)):
            self.offset += 1
            yield [_step_event(step) | {"offset": self.offset - 1}]
        if not new:
            await asyncio.sleep(min(seconds, JOURNAL_SECONDS))


class _Attempts:
    """The rule for attempts, for a reader that has had what `take` returned."""

    def __init__(self) -> None:
        self._had: dict[str, tuple[tuple[int, ...], int]] = {}

    def take(self, events: Sequence[Event]) -> list[Event]:
        """Return those of the next events that count, with `restarted` before what replaces events had before."""
        newest: dict[str, tuple[int, ...]] = {}
        for event in events:
            if "number" in event:
                newest[event["step"]] = max(_attempt(event), newest.get(event["step"], ()))
        taken: list[Event] = []
        for event in events:
            if "number" not in event:
                taken.append(event)
                continue
            step, attempt, number = event["step"], _attempt(event), event["number"]
            had, last = self._had.get(step, ((), 0))
            if attempt < max(newest[step], had) or (attempt == had and number <= last):  # replaced, or stored twice
                continue
            if had and attempt > had:
                same = ("step", "turn", "path", "segment", "attempt", "offset")
                taken.append({"type": RESTARTED, **{name: event[name] for name in same if name in event}})
            self._had[step] = attempt, number
            taken.append(event)
        return taken


def _attempt(event: Event) -> tuple[int, ...]:
    return event["segment"], *map(int, event["attempt"].split("."))


def _may_replace(event: Event) -> bool:
    """Whether an event begins an attempt that may not be the first of its step."""
    return event.get("number") == 1 and (event["segment"], event["attempt"]) != (1, "1.0")


def _marked(events: Sequence[Event]) -> Iterable[Event]:
    for event, after in zip_longest(events, events[1:]):
        shares = after is not None and "number" in after and after["offset"] == event["offset"]
        yield event | {"is_last": not shares}


def _interrupted(source: _Stream | _Journal, asked: Sequence[Approval], *, reason: str | None = None) -> Event:
    """Return the event of an interruption. Without a reason it is that of the first question."""
    if reason is None:
        reason = kind_of_approval(asked[0].kind).reason
    names = ("id", "kind", "agent", "tool", "call_id", "arguments", "details")
    approvals = [{name: getattr(each, name) for name in names} for each in asked]
    return _derived(source, RUN_INTERRUPTED, reason=reason, approvals=approvals)


def _derived(source: _Stream | _Journal, kind: str, **fields: Any) -> Event:
    return {"type": kind, **fields, "segment": source.segment, "offset": source.offset - 1}


def _step_event(step: Step) -> Event:
    seconds = None
    if step.started_at is not None and step.finished_at is not None:
        seconds = round((step.finished_at - step.started_at).total_seconds(), 3)
    event: Event = {
        "type": STEP,
        "step": step.name,
        "kind": step.kind,
        "step_id": step.step_id,
        "seconds": seconds,
        "is_error": step.error is not None,
        "segment": step.segment,
        "attempt": f"{step.attempt}.0",
        "number": 1,
    }
    if step.usage is not None:
        used = {"input_tokens": step.usage.input_tokens, "output_tokens": step.usage.output_tokens}
        event |= {"model": step.model, "usage": used}
    return event
