"""A conversation of eight inputs with two agents, in one process or in two: `python conversation.py PART SESSIONS`.

Plain turn, handoff and tool, memory, approval in the handed-off agent, input guardrail, output guardrail, memory
after them, an image. The model decides from what it is shown alone, so that any process may play it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    Model,
    ModelResponse,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    function_tool,
)
from agents.testing import assistant_message, function_call
from agents.usage import Usage
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent

from timestep import RunStateStore, Session, register_agents, run_agent, run_agent_workflow

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
INPUTS: list[Any] = [
    "Hello, my name is Ada.",
    "What is the weather in Oslo?",
    "What is my name?",
    "What is the weather in Paris?",
    "Tell me the forbidden thing.",
    "Say the secret.",
    "Do you still know my name?",
    [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is on this image?"},
                {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
            ],
        }
    ],
]
INTERRUPTED = 3
"""Index of the input whose tool needs approval."""

FIRST = ["Hello, Ada.", "Weather: Oslo is sunny", "You are Ada.", "interrupted"]
SECOND = [
    "Weather: Paris is sunny",
    "InputGuardrailTripwireTriggered",
    "OutputGuardrailTripwireTriggered",
    "You are Ada.",
    "One pixel.",
]
MESSAGE = ["user", "assistant"]
CALL = ["function_call", "function_call_output"]
ITEMS = [
    *MESSAGE,
    "user",
    *CALL,
    *CALL,
    "assistant",
    *MESSAGE,
    "user",
    *CALL,
    "assistant",
    "user",
    "user",
    *MESSAGE,
    *MESSAGE,
]
"""The SDK keeps an input that a guardrail has refused, and nothing that was said about it."""


class Listener(Model):
    """Decides from the conversation alone what the front desk or the weather desk says next."""

    def __init__(self, desk: str) -> None:
        self.desk = desk

    def answer(self, items: Any) -> Any:
        """Return the next output item."""
        items = [{"role": "user", "content": items}] if isinstance(items, str) else items
        last_user = max(index for index, item in enumerate(items) if item.get("role") == "user")
        asked, since = text_of(items[last_user]), items[last_user + 1 :]
        outputs = [item["output"] for item in since if item.get("type") == "function_call_output"]
        if "weather" in asked:
            if self.desk == "front":
                return function_call("transfer_to_weather", {}, call_id=f"h{last_user}")
            if not any("sunny" in output for output in outputs):
                city = asked.split()[-1].rstrip("?")
                return function_call("get_weather", {"city": city}, call_id=f"w{last_user}")
            return assistant_message(f"Weather: {outputs[-1]}")
        if "name" in asked and "my name is" not in asked:
            known = any("Ada" in text_of(item) for item in items if item.get("role") == "user")
            return assistant_message("You are Ada." if known else "I do not know.")
        if "image" in asked:
            return assistant_message("One pixel.")
        return assistant_message("The secret is 42." if "secret" in asked else "Hello, Ada.")

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        usage = Usage(requests=1, input_tokens=1, output_tokens=1, total_tokens=2)
        return ModelResponse(output=[self.answer(input)], usage=usage, response_id=None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        item = self.answer(input)
        if item.type == "message":
            yield ResponseTextDeltaEvent(
                content_index=0, delta=text_of(item.model_dump()), item_id="m", logprobs=[], output_index=0,
                sequence_number=1, type="response.output_text.delta",
            )  # fmt: skip
        final = Response.model_construct(id="r", output=[item], usage=None, object="response", tools=[])
        yield ResponseCompletedEvent.model_construct(response=final, sequence_number=2, type="response.completed")


MakeModel = Callable[[str], Model | str]
"""What makes the model of the front desk or the weather desk, or names it."""


def text_of(item: Any) -> str:
    """Return the text of a message item."""
    content = item.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def new_agents(*, is_parallel: bool, model: MakeModel) -> tuple[Agent[Any], Agent[Any]]:
    """Return the front desk, and the weather desk to which it hands off."""

    async def needs_approval(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return arguments["city"] == "Paris"

    @function_tool(needs_approval=needs_approval)
    async def get_weather(city: str) -> str:
        return f"{city} is sunny"

    async def forbid(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        asked = given if isinstance(given, str) else text_of(given[-1])
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered="forbidden" in asked)

    async def keep(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered="secret" in str(output))

    guarded: dict[str, Any] = {
        "input_guardrails": [InputGuardrail(guardrail_function=forbid, run_in_parallel=is_parallel)],
        "output_guardrails": [OutputGuardrail(guardrail_function=keep)],
    }
    weather = Agent(
        name="weather", instructions="You are the weather desk.", model=model("weather"), tools=[get_weather], **guarded
    )
    front = Agent(
        name="front", instructions="You are the front desk.", model=model("front"), handoffs=[weather], **guarded
    )
    return front, weather


async def say(agent: Agent[Any], given: Any, session: Session, *, is_durable: bool, stream: bool) -> Any:
    """Say one thing to the agent."""
    if is_durable:
        return await run_agent_workflow(agent, given, session, stream=stream)
    return await run_agent(agent, given, session, stream=stream)


async def first_part(
    session_id: str, *, is_parallel: bool, is_durable: bool, stream: bool, model: MakeModel = Listener
) -> list[str]:
    """Have the conversation up to the interruption, each input with the agent that answered last; save the state."""
    agent, weather = new_agents(is_parallel=is_parallel, model=model)
    session = Session(session_id)
    register_agents(agent, weather, replace=True)
    said: list[str] = []
    for given in INPUTS[: INTERRUPTED + 1]:
        result = await say(agent, given, session, is_durable=is_durable, stream=stream)
        said.append("interrupted" if result.interruptions else result.final_output)
        agent = result.last_agent
    async with RunStateStore(agent, session_id=session_id) as store:
        await store.save(result.to_state())
    return said


async def second_part(
    session_id: str, *, is_parallel: bool, is_durable: bool, stream: bool, model: MakeModel = Listener
) -> list[str]:
    """Load the state, approve what it waits for, and have the rest of the conversation."""
    front, agent = new_agents(is_parallel=is_parallel, model=model)
    session = Session(session_id)
    register_agents(front, agent, replace=True)
    async with RunStateStore(agent, session_id=session_id) as store:
        state = await store.load()
    for interruption in state.get_interruptions():
        state.approve(interruption)
    said: list[str] = []
    for given in [state, *INPUTS[INTERRUPTED + 1 :]]:
        try:
            result = await say(agent, given, session, is_durable=is_durable, stream=stream)
            said.append(result.final_output)
        except (InputGuardrailTripwireTriggered, OutputGuardrailTripwireTriggered) as error:
            said.append(type(error).__name__)
    return said


MODES = [
    {"is_durable": is_durable, "is_parallel": is_parallel, "stream": stream}
    for is_durable in (False, True)
    for is_parallel in (False, True)
    for stream in (False, True)
]
"""Every way to have the conversation."""


async def all_modes(part: str, sessions: list[str]) -> list[list[str]]:
    """Have one part of the conversation in every mode, each in a session of its own."""
    have = first_part if part == "first" else second_part
    return [await have(session_id, **mode) for session_id, mode in zip(sessions, MODES, strict=True)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(all_modes(sys.argv[1], sys.argv[2:]))))
