"""A small agent that runs by the clock: its tool chimes, and is held in the process that is to be killed."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import side_log
from agents import Agent, Model, ModelResponse, function_tool
from agents.usage import Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from timestep import current_tool_call

SCHEDULE = "every-second"
HOLD_VARIABLE = "RECOVERY_HOLD"


class TimekeeperMind(Model):
    """Asks for one chime, then answers."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        if not any(item.get("type") == "function_call_output" for item in input):
            call = ResponseFunctionToolCall(type="function_call", call_id="c1", name="chime", arguments="{}")
            return ModelResponse(output=[call], usage=Usage(), response_id=None)
        part = ResponseOutputText(type="output_text", text="It has chimed.", annotations=[])
        message = ResponseOutputMessage(type="message", id="msg", role="assistant", status="completed", content=[part])
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@function_tool
async def chime() -> str:
    """Chime."""
    side_log.write("chimed", current_tool_call().run_id)
    while os.environ.get(HOLD_VARIABLE) and not side_log.is_released():
        await asyncio.sleep(side_log.POLL_SECONDS)
    return "ding"


def build() -> Agent[Any]:
    """Return the agent."""
    return Agent(name="timekeeper", model=TimekeeperMind(), tools=[chime])
