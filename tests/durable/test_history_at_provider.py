"""Runs without a session whose history is at the model's provider: `conversation_id` and responses that are chained."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, function_tool
from agents.testing import assistant_message, function_call
from agents.usage import Usage

from timestep import approve, queue_agent_workflow, run_agent, run_agent_workflow, wait_run
from timestep.errors import InvalidInputError, RunInputMismatchError

CONVERSATION: dict[str, Any] = {"conversation_id": "conv_1"}
PREVIOUS: dict[str, Any] = {"previous_response_id": "resp_0"}
AUTO: dict[str, Any] = {"auto_previous_response_id": True}


@function_tool(needs_approval=True)
def refund(order: int) -> str:
    """Give the money back."""
    return "done"


@function_tool
def look(order: int) -> str:
    """Look up an order."""
    return "on its way"


class Provider(Model):
    """Keeps what each call said about the history, and gives each response an id."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.calls: list[tuple[Any, Any, list[str]]] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        given = [{"type": "message"}] if isinstance(input, str) else input
        kinds = [item.get("type", "message") for item in given]
        self.calls.append((kwargs.get("conversation_id"), kwargs.get("previous_response_id"), kinds))
        is_first = len(self.calls) == 1
        output: Any = function_call(self.tool, {"order": 7}, call_id="c1") if is_first else assistant_message("Done")
        usage = Usage(requests=1, input_tokens=1, output_tokens=1, total_tokens=2)
        return ModelResponse(output=[output], usage=usage, response_id=f"resp_{len(self.calls)}")

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def clerk(tool: str = "look") -> tuple[Agent[Any], Provider]:
    provider = Provider(tool)
    return Agent(name="clerk", model=provider, tools=[refund, look]), provider


ONLY_NEW = ["function_call_output"]
EXPECTED: list[tuple[dict[str, Any], list[Any]]] = [
    (CONVERSATION, [("conv_1", None, ["message"]), ("conv_1", None, ONLY_NEW)]),
    (PREVIOUS, [(None, "resp_0", ["message"]), (None, "resp_1", ONLY_NEW)]),
    (AUTO, [(None, None, ["message"]), (None, "resp_1", ONLY_NEW)]),
]


@pytest.mark.parametrize(("where", "calls"), EXPECTED)
async def test_each_turn_sends_what_is_new_to_where_the_history_is(
    engine: Any, new_id: str, where: dict[str, Any], calls: list[Any]
) -> None:
    agent, provider = clerk()
    result = await run_agent_workflow(agent, "Hi", workflow_id=new_id, **where)
    assert (result.output, provider.calls) == ("Done", calls)
    steps = engine.steps(new_id)
    assert (await engine.replay(new_id))[1].output == "Done"
    assert (engine.steps(new_id), provider.calls) == (steps, calls)


@pytest.mark.parametrize(("where", "calls"), EXPECTED)
async def test_it_is_known_after_an_approval_in_the_next_segment(
    engine: Any, new_id: str, where: dict[str, Any], calls: list[Any]
) -> None:
    agent, provider = clerk("refund")
    await queue_agent_workflow(agent, "Hi", workflow_id=new_id, **where)
    waiting = await run_agent_workflow(agent, "Hi", workflow_id=new_id, **where)
    assert waiting.interruptions
    await approve(new_id, by="ann")
    assert (await wait_run(new_id)).output == "Done"
    assert provider.calls == calls


@pytest.mark.parametrize(("where", "calls"), EXPECTED)
async def test_a_plain_run_takes_it_too(where: dict[str, Any], calls: list[Any]) -> None:
    agent, provider = clerk()
    assert (await run_agent(agent, "Hi", **where)).output == "Done"
    assert provider.calls == calls


@pytest.mark.parametrize("where", [CONVERSATION, PREVIOUS, AUTO])
async def test_a_session_beside_it_is_refused_by_name(engine: Any, new_id: str, where: dict[str, Any]) -> None:
    agent, provider = clerk()
    [name] = where
    with pytest.raises(InvalidInputError, match=f"{name} and the session 's-1' are two places of one history"):
        await run_agent_workflow(agent, "Hi", "s-1", workflow_id=new_id, **where)
    assert (engine.status(new_id), provider.calls) == (None, [])


async def test_a_state_and_what_is_no_id_are_refused_by_name(engine: Any, new_id: str) -> None:
    agent, _ = clerk("refund")
    waiting = await run_agent(agent, "Hi")
    with pytest.raises(InvalidInputError, match="conversation_id is given with a RunState"):
        await run_agent_workflow(agent, waiting.to_state(), workflow_id=new_id, **CONVERSATION)
    with pytest.raises(InvalidInputError, match="conversation_id is an id of the model's provider, not 7"):
        await run_agent_workflow(agent, "Hi", workflow_id=new_id, conversation_id=7)  # type: ignore[arg-type]


async def test_another_conversation_is_another_input(engine: Any, new_id: str) -> None:
    agent, _ = clerk()
    await run_agent_workflow(agent, "Hi", workflow_id=new_id, **CONVERSATION)
    with pytest.raises(RunInputMismatchError):
        await run_agent_workflow(agent, "Hi", workflow_id=new_id, conversation_id="conv_2")
