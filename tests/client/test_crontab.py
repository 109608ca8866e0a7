"""The times of a crontab: those that DBOS reads, and the reason of those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, Model, ModelResponse
from agents.testing import assistant_message
from agents.usage import Usage
from dbos import DBOS

import timestep
from timestep import create_scheduled_agent_workflow
from timestep.errors import InvalidInputError

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


@pytest.mark.parametrize(
    ("crontab", "reason"),
    [
        ("", "5, 6 or 7 columns"),
        ("often", "5, 6 or 7 columns"),
        ("* * * *", "5, 6 or 7 columns"),
        ("61 * * * *", "out of range"),
        ("0 25 * * *", "out of range"),
        ("0 0 30 2 *", "failed to find next date"),
        ("* * * * * * *", "7 fields, more than 6"),
        ("R * * * *", "random"),
        ("0 r(1-5) * * *", "random"),
    ],
)
def test_a_crontab_without_times_is_refused_with_the_reason(engine: Any, crontab: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match="The crontab") as found:
        create_scheduled_agent_workflow(crontab, says("x", "x"), "Go")

    assert reason in str(found.value)
    assert "five fields" in found.value.hint


@pytest.mark.parametrize("crontab", ["@daily", "0 9 * * MON-FRI", "30 0 9 * * *", "0 0 L * *"])
def test_what_dbos_reads_is_taken(engine: Any, crontab: str) -> None:
    assert create_scheduled_agent_workflow(crontab, says("x", "x"), "Go").next_tick_at is not None
