"""Why a run failed, in one word: of a closed list, whatever the error."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, MaxTurnsExceeded, function_tool
from agents.testing import function_call
from turns import Turns

from timestep import RunLimits, run_agent_workflow, wait_run
from timestep.client.runs import resume_run
from timestep.durable.process.engine import engine as launched_engine
from timestep.errors import ApprovalExpiredError, LimitReachedError


class WeatherError(Exception):
    """An error of the program's own."""


def failing(*errors: Exception) -> Agent[Any]:
    """An agent whose instructions raise these errors, one a time, and which then works."""
    left = list(errors)

    async def instructions(context: Any, agent: Any) -> str:
        if left:
            raise left.pop(0)
        return "Work."

    @function_tool
    async def weather() -> str:
        return "sun"

    model = Turns(*(function_call("weather", {}, call_id=f"c{number}") for number in range(3)), "done")
    return Agent(name="clerk", instructions=instructions, model=model, tools=[weather])


async def test_an_error_of_the_program_is_an_exception_with_its_class_beside_it(engine: Any, new_id: str) -> None:
    with pytest.raises(WeatherError):
        await run_agent_workflow(failing(WeatherError("rain")), "Go", workflow_id=new_id)
    row = engine.run(new_id)
    assert (row["status"], row["reason"], row["error"]["type"]) == ("failed", "exception", "WeatherError")


async def test_an_error_of_the_sdk_keeps_its_reason(engine: Any, new_id: str) -> None:
    with pytest.raises(MaxTurnsExceeded):
        await run_agent_workflow(failing(), "Go", workflow_id=new_id, max_turns=2)
    assert engine.run(new_id)["reason"] == "max_turns_exceeded"


async def test_a_limit_that_fails_the_run_has_one_spelling(engine: Any, new_id: str) -> None:
    with pytest.raises(LimitReachedError, match="max_turns=1"):
        await run_agent_workflow(failing(), "Go", workflow_id=new_id, limits=RunLimits(max_turns=1, on_limit="fail"))
    assert engine.run(new_id)["reason"] == "limit_reached"


async def test_a_run_that_raises_an_expiry_of_another_does_not_wait_for_a_decision_after_a_resume(
    engine: Any, new_id: str
) -> None:
    with pytest.raises(ApprovalExpiredError):
        await run_agent_workflow(failing(ApprovalExpiredError("Late.")), "Go", workflow_id=new_id)
    assert engine.run(new_id)["reason"] == "approval_expired"
    resume_run(launched_engine().connector, new_id)
    assert engine.run(new_id)["segment"] == 2
    assert (await wait_run(new_id)).output == "done"
