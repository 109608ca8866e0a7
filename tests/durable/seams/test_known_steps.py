"""Which steps look into the journal before they begin: those that may be recorded, and those after a pause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from dbos._sys_db import SystemDatabase

from timestep import run_agent_workflow
from timestep.durable.process.engine import engine as launched_engine
from timestep.durable.seams import known_steps
from timestep.durable.seams.known_steps import Known
from timestep.errors import RunCancelledError


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the steps that were looked for, however slow the machine is."""
    monkeypatch.setattr(known_steps, "OWNED_SECONDS", 600)
    found: list[str] = []
    look = SystemDatabase.check_operation_execution

    def noted(self: Any, workflow_id: str, function_id: int, function_name: str, **named: Any) -> Any:
        found.append(function_name)
        return look(self, workflow_id, function_id, function_name, **named)

    monkeypatch.setattr(SystemDatabase, "check_operation_execution", noted)
    return found


def agent_with(body: Callable[[], str]) -> Agent[Any]:
    @function_tool
    def act() -> str:
        return body()

    calls = [[function_call("act", {}, call_id=f"c{number}")] for number in (1, 2)]
    return Agent(name="assistant", tools=[act], model=ScriptedModel([*calls, *[[assistant_message("done")]] * 2]))


async def test_the_first_attempt_of_a_run_looks_for_nothing(engine: Any, new_id: str, looks: list[str]) -> None:
    result = await run_agent_workflow(agent_with(lambda: "ok"), "Go", workflow_id=new_id)

    assert result.output == "done"
    assert looks == []
    assert len(engine.steps(new_id)) == 5


@pytest.mark.usefixtures("quick_chores")
async def test_after_a_pause_a_step_looks_whether_the_run_is_still_its_own(
    engine: Any, new_id: str, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_steps, "OWNED_SECONDS", 0)
    bodies: list[str] = []

    def cancel() -> str:
        bodies.append("ran")
        engine.query("update dbos.workflow_status set status = 'CANCELLED' where workflow_uuid = %s", new_id)
        return "the owner was left as it is, so that the record is taken"

    with pytest.raises(RunCancelledError):
        await run_agent_workflow(agent_with(cancel), "Go", workflow_id=new_id)

    assert bodies == ["ran"]
    assert looks == ["model_turn:2:assistant"]
    assert engine.steps(new_id) == ["model_turn:1:assistant", "tool_call:1:act:c1"]


@pytest.mark.usefixtures("quick_chores")
async def test_no_step_follows_one_during_which_the_run_was_cancelled(
    engine: Any, new_id: str, looks: list[str]
) -> None:
    bodies: list[str] = []

    def cancel() -> str:
        bodies.append("ran")
        launched_engine().client.cancel_workflow(new_id)
        return "cancelled"

    with pytest.raises(RunCancelledError):
        await run_agent_workflow(agent_with(cancel), "Go", workflow_id=new_id)

    assert bodies == ["ran"]
    assert looks == []
    assert engine.steps(new_id) == ["model_turn:1:assistant"]


async def test_a_repeated_segment_looks_for_the_recorded_steps_alone(
    engine: Any, new_id: str, looks: list[str]
) -> None:
    bodies: list[int] = []

    def act() -> str:
        bodies.append(1)
        return "ok"

    agent = agent_with(act)
    await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, result = await engine.replay(new_id, steps=3)

    assert result.output == "done"
    assert looks == ["model_turn:1:assistant", "tool_call:1:act:c1", "model_turn:2:assistant"]
    assert len(bodies) == 3


def test_what_is_recorded_or_unknown_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(known_steps.time, "monotonic", lambda: now[0])
    known = Known([1, 2])
    assert known.is_new(3)
    assert not known.is_new(2)
    assert known.is_owned_still
    now[0] += 2 * known_steps.OWNED_SECONDS
    assert not known.is_owned_still
    known.is_owned(now[0])
    assert known.is_owned_still

    assert not Known().is_new(3)
