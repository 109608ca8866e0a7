"""Schedules from outside: listed, changed, triggered, backfilled, and the ticks that were missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse
from agents.testing import assistant_message
from agents.usage import Usage
from dbos import DBOS

import timestep
from timestep import Client, create_scheduled_agent_workflow
from timestep.durable.process.engine import engine as launched
from timestep.durable.schedules import start_missed_ticks
from timestep.errors import InvalidInputError, ScheduleNotFoundError
from timestep.records import CatchUp, Schedule

EVERY_SECOND = "* * * * * *"
NEVER = "0 0 0 29 2 *"


def says(text: str, name: str) -> Agent[Any]:
    class Always(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            return ModelResponse(output=[assistant_message(text)], usage=Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    return Agent(name=name, model=Always())


@pytest.fixture(autouse=True)
def no_schedules_left(engine: Any) -> Any:
    yield
    if timestep.is_dbos_launched():
        for row in engine.query("select schedule_name from dbos.workflow_schedules"):
            DBOS.delete_schedule(row["schedule_name"])


def outputs(engine: Any, agent: str) -> set[str]:
    rows = engine.query("select output from timestep.runs where agent = %s and status = 'succeeded'", agent)
    return {row["output"] for row in rows}


NOW = datetime.now(UTC)
HOURLY = f"{(NOW - timedelta(minutes=10)).minute} * * * *"
MISSED = [(NOW - timedelta(minutes=10, hours=hours)).replace(second=0, microsecond=0) for hours in (2, 1, 0)]


def missed(engine: Any, catch_up: CatchUp, *, is_counted_from_making: bool = False) -> Schedule:
    """Make a schedule that has missed three ticks: it was started last, or made, before them."""
    schedule = create_scheduled_agent_workflow(
        HOURLY, says("late", "latecomer"), "Go", name=f"late-{catch_up}-{id(object())}", catch_up=catch_up
    )
    before = (MISSED[0] - timedelta(minutes=30)).isoformat()
    engine.query(
        "update dbos.workflow_schedules set context = jsonb_set(context::jsonb, '{since}', to_jsonb(%s::text))::text,"
        " last_fired_at = %s where schedule_name = %s",
        before, None if is_counted_from_making else before, schedule.name,
    )  # fmt: skip
    return schedule


def started(engine: Any, schedule: Schedule) -> list[str]:
    query = "select id from timestep.runs where id like %s order by id"
    return [row["id"] for row in engine.query(query, f"{schedule.name}:%")]


def ids(schedule: Schedule, ticks: list[datetime]) -> list[str]:
    return [f"{schedule.name}:{tick.isoformat()}" for tick in ticks]


@pytest.mark.parametrize("is_counted_from_making", [False, True])
@pytest.mark.parametrize(("catch_up", "expected"), [("all", MISSED), ("one", MISSED[-1:]), ("none", [])])
def test_missed_ticks_are_started_as_the_schedule_asks_and_once(
    engine: Any, catch_up: CatchUp, expected: list[datetime], is_counted_from_making: bool
) -> None:
    schedule = missed(engine, catch_up, is_counted_from_making=is_counted_from_making)

    for _ in range(2):
        start_missed_ticks(launched().connector)
    assert started(engine, schedule) == ids(schedule, expected)

    engine.query("delete from timestep.runs where id like %s", f"{schedule.name}:%")  # as a clean-up of old runs does
    start_missed_ticks(launched().connector)
    assert started(engine, schedule) == []


def test_a_launch_starts_what_was_missed_before_anything_else(engine: Any, until: Any) -> None:
    schedule = missed(engine, "one")
    timestep.cleanup_dbos()
    timestep.configure_dbos()
    create_scheduled_agent_workflow(HOURLY, says("late", "latecomer"), "Go", name=schedule.name)
    timestep.ensure_dbos_launched()

    assert started(engine, schedule) == ids(schedule, MISSED[-1:])
    until(lambda: outputs(engine, "latecomer"), "the missed run has succeeded")


async def test_what_passes_while_a_schedule_is_paused_is_not_missed(engine: Any) -> None:
    schedule = missed(engine, "all")
    async with Client() as client:
        await client.pause_schedule(schedule.name)
        start_missed_ticks(launched().connector)
        resumed = await client.resume_schedule(schedule.name)
    start_missed_ticks(launched().connector)

    assert not resumed.is_paused
    assert started(engine, schedule) == []


def test_new_times_count_from_the_change(engine: Any) -> None:
    schedule = missed(engine, "all")
    create_scheduled_agent_workflow(f"0 {HOURLY}", says("late", "latecomer"), "Go", name=schedule.name, catch_up="all")
    start_missed_ticks(launched().connector)

    assert started(engine, schedule) == []


@pytest.mark.parametrize(("catch_up", "expected"), [("all", MISSED), ("one", MISSED[-1:]), ("none", [])])
def test_ticks_that_a_process_starts_late_after_a_sleep_are_missed_too(
    engine: Any, until: Any, catch_up: CatchUp, expected: list[datetime]
) -> None:
    schedule = missed(engine, catch_up)
    engine.query("update dbos.workflow_schedules set last_fired_at = %s", NOW.isoformat())
    launched().client.backfill_schedule(schedule.name, MISSED[0] - timedelta(minutes=1), NOW)  # what its thread does

    workflows = "select 1 from dbos.workflow_status where schedule_name = %s and status = 'SUCCESS'"
    until(lambda: len(engine.query(workflows, schedule.name)) == len(MISSED), "the ticks were looked at")
    assert started(engine, schedule) == ids(schedule, expected)


def test_a_schedule_of_the_first_version_goes_on_and_catches_up_with_nothing(engine: Any, until: Any) -> None:
    schedule = missed(engine, "all")
    engine.query(
        "update dbos.workflow_schedules set"
        " context = (context::jsonb - '{crontab,timezone,catch_up,since}'::text[])::text"
    )
    start_missed_ticks(launched().connector)
    assert started(engine, schedule) == []

    launched().client.trigger_schedule(schedule.name)
    until(lambda: started(engine, schedule), "a tick has started its run")


async def test_trigger_and_backfill_queue_runs_at_once(engine: Any) -> None:
    schedule = create_scheduled_agent_workflow(HOURLY, says("x", "clerk"), "Go", name="hourly")
    async with Client() as client:
        run_id = await client.trigger_schedule("hourly")
        again = [await client.backfill_schedule("hourly", start=MISSED[0], end=MISSED[2]) for _ in range(2)]
        with pytest.raises(InvalidInputError, match="more than 1,000"):
            await client.backfill_schedule("hourly", start=MISSED[0] - timedelta(days=400), end=MISSED[2])
        with pytest.raises(InvalidInputError, match="no past time"):
            await client.backfill_schedule("hourly", start=MISSED[0], end=NOW + timedelta(days=1))
        with pytest.raises(InvalidInputError, match="no time zone"):
            await client.backfill_schedule("hourly", start=MISSED[0].replace(tzinfo=None), end=NOW)

    assert again == [ids(schedule, MISSED[:2]), []]
    assert sorted([run_id, *again[0]]) == started(engine, schedule)


async def test_the_client_makes_lists_shows_and_deletes_schedules(engine: Any) -> None:
    async with Client() as client:
        made = await client.create_schedule("nightly", "0 6 * * *", "reporter", "Report", timezone="Europe/Berlin")
        assert made.next_tick_at is not None
        assert made.next_tick_at.astimezone(UTC).hour in (4, 5)
        assert (made.catch_up, made.agent, made.input_items) == ("one", "reporter", "Report")
        [listed] = await client.list_schedules()
        assert listed.name == "nightly"
        with pytest.raises(InvalidInputError, match="already"):
            await client.create_schedule("nightly", "0 7 * * *", "reporter", "Report")
        assert (await client.create_schedule("nightly", "0 7 * * *", "reporter", "R", replace=True)).input_items == "R"
        for wrong in ({"input_items": " "}, {"agent": ""}, {"session_id": ""}, {"crontab": "often"}):
            with pytest.raises(InvalidInputError):
                await client.create_schedule(
                    **({"name": "bad", "crontab": NEVER, "agent": "a", "input_items": "x"} | wrong)
                )
        await client.delete_schedule("nightly")
        for verb in (client.get_schedule, client.pause_schedule, client.resume_schedule, client.trigger_schedule):
            with pytest.raises(ScheduleNotFoundError, match="nightly"):
                await verb("nightly")
