"""Agents inside a program's own DBOS workflows: durable by themselves, a session written once."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, Runner, SQLiteSession, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from dbos import SetWorkflowID
from own_workflows import again, workflow

from timestep import Session, queue_agent_workflow, run_agent, run_agent_workflow


def clerk(ran: list[str]) -> Agent[Any]:
    @function_tool
    def look(thing: str) -> str:
        ran.append(thing)
        return f"{thing} seen"

    return Agent(
        name="clerk",
        tools=[look],
        model=ScriptedModel(
            [
                [
                    function_call("look", {"thing": "sea"}, call_id="c1"),
                    function_call("look", {"thing": "sky"}, call_id="c2"),
                ],
                [assistant_message("done")],
            ]
        ),
    )


@pytest.mark.parametrize("is_ours", [True, False], ids=["run_agent", "Runner.run"])
async def test_turns_and_calls_are_steps_of_the_workflow(engine: Any, is_ours: bool, new_id: str) -> None:
    ran: list[str] = []
    agent = clerk(ran)

    async def own(text: str) -> str:
        result = await (run_agent(agent, text) if is_ours else Runner.run(agent, text))
        return result.final_output

    function = workflow(own)
    with SetWorkflowID(new_id):
        output = await function("Look")
    replayed = await again(engine, new_id)

    assert output == replayed == "done"
    assert sorted(ran) == ["sea", "sky"]
    assert len(agent.model.calls) == 2
    steps = engine.steps(new_id)
    assert [step.split("/")[-1] for step in steps] == [
        "model_turn:1:clerk", "tool_call:1:look:c1", "tool_call:1:look:c2", "model_turn:2:clerk",
    ]  # fmt: skip


async def test_two_runs_of_one_workflow_have_steps_of_their_own(engine: Any, new_id: str) -> None:
    agents = [clerk([]), clerk([])]

    async def own() -> list[str]:
        return [(await run_agent(agent, "Look")).output for agent in agents]

    function = workflow(own)
    with SetWorkflowID(new_id):
        assert await function() == ["done", "done"]

    steps = engine.steps(new_id)
    assert len(steps) == len(set(steps)) == 8
    assert await again(engine, new_id) == ["done", "done"]


async def test_a_session_is_written_once_however_often_the_workflow_is_replayed(engine: Any, new_id: str) -> None:
    agent, session = clerk([]), Session(f"s-{new_id}")

    async def own() -> str:
        return (await run_agent(agent, "Look", session)).output

    function = workflow(own)
    with SetWorkflowID(new_id):
        await function()
    assert len(await session.get_items()) == 6

    await again(engine, new_id)

    assert len(await session.get_items()) == 6
    assert engine.steps(new_id)[0] == "session_read"
    assert engine.steps(new_id)[-1] == "session_write"


async def test_the_history_of_the_session_is_what_the_model_sees(engine: Any, new_id: str) -> None:
    agent = Agent(name="clerk", model=ScriptedModel([[assistant_message("Hello Ann")], [assistant_message("Ann")]]))
    session = Session(f"s-{new_id}")

    async def own() -> str:
        await run_agent(agent, "I am Ann", session)
        return (await run_agent(agent, [{"role": "user", "content": "Who am I?"}], session)).output

    with SetWorkflowID(new_id):
        assert await workflow(own)() == "Ann"

    assert [item["role"] for item in agent.model.last_call.input] == ["user", "assistant", "user"]
    assert len(await session.get_items()) == 4


async def test_any_session_of_the_sdk_works_and_is_written_at_the_end(engine: Any, new_id: str) -> None:
    agent, session = clerk([]), SQLiteSession("any")

    async def own() -> str:
        result = await run_agent(agent, "Look", session)
        return result.output

    with SetWorkflowID(new_id):
        await workflow(own)()

    assert len(await session.get_items()) == 6
    session.close()


async def test_a_streamed_run_in_a_workflow_is_durable_too(engine: Any, new_id: str) -> None:
    ran: list[str] = []
    agent = clerk(ran)

    async def own() -> str:
        result = await run_agent(agent, "Look", stream=True)
        return result.output

    function = workflow(own)
    with SetWorkflowID(new_id):
        assert await function() == "done"
    assert await again(engine, new_id) == "done"

    assert sorted(ran) == ["sea", "sky"]
    assert len(agent.model.calls) == 2


async def test_a_durable_run_in_a_workflow_is_a_child_with_an_id_of_its_own(engine: Any, new_id: str) -> None:
    agent = clerk([])

    async def own() -> str:
        result = await run_agent_workflow(agent, "Look", workflow_id=f"child-of-{new_id}")
        return result.output

    with SetWorkflowID(new_id):
        assert await workflow(own)() == "done"

    assert engine.status(f"child-of-{new_id}") == "succeeded"


async def test_a_tool_may_queue_a_run(engine: Any, new_id: str) -> None:
    agent = clerk([])

    @function_tool
    def start() -> str:
        return queue_agent_workflow(agent, "Look", workflow_id=f"queued-by-{new_id}").run_id

    outer = Agent(
        name="outer",
        tools=[start],
        model=ScriptedModel([[function_call("start", {}, call_id="c1")], [assistant_message("over")]]),
    )

    await run_agent_workflow(outer, "Go", workflow_id=new_id)

    engine.wait_for_status(f"queued-by-{new_id}", "succeeded")


async def test_outside_a_workflow_run_agent_leaves_nothing_in_the_journal(engine: Any) -> None:
    before = engine.value("select count(*) from dbos.operation_outputs")

    result = await run_agent(clerk([]), "Look")

    assert result.output == result.final_output == "done"
    assert engine.value("select count(*) from dbos.operation_outputs") == before
