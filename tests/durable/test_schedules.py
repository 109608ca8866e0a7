"""Schedules: runs by the clock, made before or after the launch."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse
from agents.testing import assistant_message
from agents.usage import Usage
from dbos import DBOS

import timestep
from timestep import Client, create_scheduled_agent_workflow
from timestep.durable.process.engine import engine as launched
from timestep.errors import InvalidInputError

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


def test_two_schedules_every_second_run_two_agents(engine: Any, until: Any) -> None:
    create_scheduled_agent_workflow(EVERY_SECOND, says("tick", "ticker"), "Tick", "ticks")
    create_scheduled_agent_workflow(EVERY_SECOND, says("tock", "tocker"), "Tock")

    until(lambda: outputs(engine, "ticker") and outputs(engine, "tocker"), "both have run")

    assert outputs(engine, "ticker") == {"tick"}
    assert outputs(engine, "tocker") == {"tock"}
    ids = [row["id"] for row in engine.query("select id from timestep.runs where agent = 'ticker'")]
    assert len(ids) == len(set(ids))
    assert all(run_id.startswith("ticker-") and ":20" in run_id for run_id in ids)


def test_a_schedule_made_before_the_launch_runs_after_it(engine: Any, until: Any) -> None:
    timestep.cleanup_dbos()
    create_scheduled_agent_workflow(EVERY_SECOND, says("early", "early-bird"), "Sing")
    timestep.configure_dbos()
    timestep.ensure_dbos_launched()

    until(lambda: outputs(engine, "early-bird"), "the early bird has sung")


async def test_a_schedule_is_made_under_a_running_loop_too(engine: Any) -> None:
    schedule = create_scheduled_agent_workflow(NEVER, says("x", "leap"), "Leap", name="leap-day")

    assert schedule.name == "leap-day"
    assert [row["schedule_name"] for row in engine.query("select schedule_name from dbos.workflow_schedules")] == [
        "leap-day"
    ]


def test_making_a_schedule_again_replaces_it(engine: Any) -> None:
    agent = says("x", "leap")
    first = create_scheduled_agent_workflow(NEVER, agent, "Leap")
    second = create_scheduled_agent_workflow(NEVER, agent, "Leap")
    other = create_scheduled_agent_workflow(NEVER, agent, "Leap twice")

    assert first.name == second.name != other.name
    assert engine.value("select count(*) from dbos.workflow_schedules") == 2


@pytest.mark.parametrize(
    ("name", "reason"), [("", "empty"), (" x", "space"), ("a~2", "segments"), ("x" * 161, "161 characters")]
)
def test_a_name_that_gives_no_run_ids_is_refused(engine: Any, name: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        create_scheduled_agent_workflow(NEVER, says("x", "x"), "Go", name=name)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "/etc/passwd"])
def test_an_unknown_time_zone_is_refused(engine: Any, zone: str) -> None:
    with pytest.raises(InvalidInputError, match="The time zone"):
        create_scheduled_agent_workflow(NEVER, says("x", "x"), "Go", timezone=zone)


def test_a_change_is_stored_and_told_once_with_old_and_new(engine: Any, caplog: Any) -> None:
    agent = says("x", "clerk")
    create_scheduled_agent_workflow(NEVER, agent, "Count", name="count")
    with caplog.at_level(logging.INFO, "timestep"):
        create_scheduled_agent_workflow(NEVER, agent, "Count", name="count")
        assert caplog.messages == []
        create_scheduled_agent_workflow("0 9 29 2 *", agent, "Count all", name="count", catch_up="all")
        create_scheduled_agent_workflow("0 9 29 2 *", agent, "Count all", name="count", catch_up="all")

    assert caplog.messages == [
        'The schedule \'count\' has changed: input_items "Count" -> "Count all"; '
        'crontab "0 0 0 29 2 *" -> "0 9 29 2 *"; catch_up "one" -> "all".'
    ]
    assert engine.value("select schedule from dbos.workflow_schedules") == "0 9 29 2 *"


async def test_a_paused_schedule_stays_paused_when_the_code_makes_it_again(engine: Any) -> None:
    agent = says("x", "clerk")
    create_scheduled_agent_workflow(NEVER, agent, "Count", name="count")
    async with Client() as client:
        assert (await client.pause_schedule("count")).is_paused
    assert create_scheduled_agent_workflow(NEVER, agent, "Count all", name="count").is_paused


def test_the_schedule_of_another_application_is_not_replaced(engine: Any) -> None:
    create_scheduled_agent_workflow(NEVER, says("x", "clerk"), "Count", name="count")
    engine.query("update dbos.workflow_schedules set application_name = 'other'")

    with pytest.raises(InvalidInputError, match="'other'"):
        create_scheduled_agent_workflow(NEVER, says("x", "clerk"), "Count all", name="count")


def test_a_schedule_of_a_workflow_of_the_program_is_none_of_ours(engine: Any) -> None:
    launched().client.create_schedule(schedule_name="own", workflow_name="some_workflow", schedule=NEVER)

    with pytest.raises(InvalidInputError, match="already"):
        create_scheduled_agent_workflow(NEVER, says("x", "clerk"), "Count", name="own")


def test_empty_input_and_foreign_sessions_are_refused_as_everywhere(engine: Any) -> None:
    with pytest.raises(InvalidInputError, match="The input is empty"):
        create_scheduled_agent_workflow(NEVER, says("x", "x"), " ")
    with pytest.raises(InvalidInputError):
        create_scheduled_agent_workflow(NEVER, says("x", "x"), "Go", object())
    assert engine.value("select count(*) from dbos.workflow_schedules") == 0
