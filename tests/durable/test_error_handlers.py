"""The SDK's error handlers, registered with an agent, answer for a durable run, here and where it is recovered."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, MaxTurnsExceeded, RunErrorHandlerInput, RunErrorHandlerResult, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import Session, queue_agent_workflow, register_agents, run_agent, run_agent_workflow
from timestep.errors import NotDurableError


@function_tool
def look(number: int) -> str:
    """Look."""
    return "nothing yet"


def seeker() -> Agent[Any]:
    calls = [[function_call("look", {"number": number}, call_id=f"c{number}")] for number in range(9)]
    return Agent(name="seeker", model=ScriptedModel([*calls, [assistant_message("found")]]), tools=[look])


class Handlers:
    """Handlers that keep what they were asked."""

    def __init__(self) -> None:
        self.asked: list[RunErrorHandlerInput[Any]] = []
        self.by_kind: Any = {"max_turns": self.give_up}

    async def give_up(self, asked: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult:
        self.asked.append(asked)
        return RunErrorHandlerResult(final_output=f"gave up after {len(asked.run_data.raw_responses)} turns")


async def test_the_handler_of_the_agent_answers_when_a_run_has_no_turn_left(engine: Any, new_id: str) -> None:
    handlers = Handlers()
    agent = seeker()
    register_agents(agent, error_handlers=handlers.by_kind)
    result = await run_agent_workflow(agent, "Seek", f"s-{new_id}", workflow_id=new_id, max_turns=2)

    assert (result.status, result.output) == ("succeeded", "gave up after 2 turns")
    assert isinstance(handlers.asked[0].error, MaxTurnsExceeded)
    assert (await run_agent_workflow(agent, "Seek", f"s-{new_id}", workflow_id=new_id, max_turns=2)).output == (
        "gave up after 2 turns"
    )
    assert len(handlers.asked) == 1
    items = await Session(f"s-{new_id}").get_items()
    assert items[-1]["content"][0]["text"] == "gave up after 2 turns"


async def test_a_replay_of_the_steps_asks_it_and_gives_the_same_end(engine: Any, new_id: str) -> None:
    handlers = Handlers()
    agent = seeker()
    register_agents(agent, error_handlers=handlers.by_kind)
    await run_agent_workflow(agent, "Seek", workflow_id=new_id, max_turns=2)
    steps = engine.steps(new_id)
    assert (await engine.replay(new_id))[1].output == "gave up after 2 turns"
    assert engine.steps(new_id) == steps


async def test_a_queued_run_has_the_handlers_of_its_executor(engine: Any) -> None:
    handlers = Handlers()
    register_agents(seeker(), error_handlers=handlers.by_kind)
    result = await queue_agent_workflow("seeker", "Seek", max_turns=1).get_result()
    assert result.output == "gave up after 1 turns"


async def test_without_one_for_the_kind_of_error_the_run_fails_as_before(engine: Any) -> None:
    agent = seeker()
    register_agents(agent, error_handlers={"model_refusal": lambda asked: "refused"})
    with pytest.raises(MaxTurnsExceeded):
        await run_agent_workflow(agent, "Seek", max_turns=1)


async def test_handlers_that_are_not_registered_are_refused_with_what_to_write(engine: Any) -> None:
    handlers = Handlers()
    agent = seeker()
    for call in (run_agent_workflow, queue_agent_workflow):
        with pytest.raises(NotDurableError, match="error_handlers are code") as raised:
            await call(agent, "Seek", error_handlers=handlers.by_kind)
        assert "register_agents(agent, error_handlers=...)" in raised.value.hint
    register_agents(agent, error_handlers=handlers.by_kind)
    result = await run_agent_workflow(agent, "Seek", max_turns=1, error_handlers=handlers.by_kind)
    assert result.output == "gave up after 1 turns"


async def test_a_plain_run_takes_them_as_the_sdk_does() -> None:
    result = await run_agent(seeker(), "Seek", max_turns=1, error_handlers=Handlers().by_kind)
    assert result.output == "gave up after 1 turns"
