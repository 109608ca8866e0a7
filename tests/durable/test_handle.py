"""The handle of a queued run: its result and its status, read plainly and awaited."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import (
    Session,
    queue_agent_workflow,
)


def says(*texts: str, name: str = "assistant", **options: Any) -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(text)] for text in texts]), **options)


async def test_a_plain_call_returns_a_handle_whose_result_is_awaited(engine: Any, new_id: str) -> None:
    handle = queue_agent_workflow(says("Hello"), "Hi", Session(f"s-{new_id}"), workflow_id=new_id)
    result = await handle.get_result()

    assert (handle.run_id, handle.workflow_id, handle.get_workflow_id()) == (new_id, new_id, new_id)
    assert (result.output, result.run_id, result.status) == ("Hello", new_id, "succeeded")
    assert engine.run(new_id)["queue"] == "timestep_agent_queue"
    assert len(await Session(f"s-{new_id}").get_items()) == 2


async def test_an_awaited_call_returns_the_handle_too(engine: Any, new_id: str) -> None:
    handle = await queue_agent_workflow(says("Hello"), "Hi", workflow_id=new_id)

    assert (await handle.get_result())["output"] == "Hello"


async def test_a_result_is_read_plainly_under_a_running_loop(engine: Any, new_id: str) -> None:
    handle = queue_agent_workflow(says("Hello"), "Hi", workflow_id=new_id)
    result = handle.get_result()

    assert result.output == "Hello"
    assert result["output"] == "Hello"
    assert "output" in result
    assert handle.get_status() == "succeeded"


def test_a_result_is_read_plainly_without_a_loop(engine: Any, new_id: str) -> None:
    handle = queue_agent_workflow(says("Hello"), "Hi", workflow_id=new_id)

    assert handle.get_result().output == "Hello"


async def test_the_status_is_read_plainly_and_awaited(engine: Any, new_id: str) -> None:
    go_on = threading.Event()

    @function_tool
    def wait() -> str:
        return str(go_on.wait(60))

    agent = Agent(
        name="assistant",
        tools=[wait],
        model=ScriptedModel([[function_call("wait", {}, call_id="c1")], [assistant_message("done")]]),
    )
    handle = queue_agent_workflow(agent, "Hi", workflow_id=new_id)
    assert handle.get_status() in ("queued", "running")
    engine.wait_for_status(new_id, "running")
    assert await handle.get_status() == "running"
    go_on.set()
    await handle.get_result()

    assert handle.get_status() == "succeeded"


async def test_a_failed_run_raises_its_own_error_at_the_handle(engine: Any, new_id: str) -> None:
    class Trouble(ValueError):
        pass

    agent = Agent(name="assistant", model=ScriptedModel([LookupError("no such thing")]))
    handle = queue_agent_workflow(agent, "Hi", workflow_id=new_id)

    with pytest.raises(LookupError, match="no such thing"):
        await handle.get_result()
    with pytest.raises(LookupError, match="no such thing"):
        handle.get_result().output  # noqa: B018 - reading it blocks and raises
    assert handle.get_status() == "failed"
