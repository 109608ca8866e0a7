"""A small agent whose tool starts runs of the timekeeper and waits for them."""

from __future__ import annotations

from typing import Any

import side_log
import timekeeper
from agents import Agent, Model, ModelResponse, function_tool
from agents.usage import Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from timestep import current_tool_call, gather_runs, queue_agent_workflow, run_agent_workflow

RUNS = 3


class SpreaderMind(Model):
    """Asks for the spread, then answers with what it brought."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        outputs = [item["output"] for item in input if item.get("type") == "function_call_output"]
        if not outputs:
            call = ResponseFunctionToolCall(type="function_call", call_id="c1", name="spread", arguments="{}")
            return ModelResponse(output=[call], usage=Usage(), response_id=None)
        part = ResponseOutputText(type="output_text", text=str(outputs[0]), annotations=[])
        message = ResponseOutputMessage(type="message", id="msg", role="assistant", status="completed", content=[part])
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@function_tool
async def spread() -> str:
    """Start runs, one of them in this process, and wait for all."""
    side_log.write("spread", current_tool_call().run_id)
    handles = [queue_agent_workflow("timekeeper", "Chime.") for _ in range(RUNS - 1)]
    last = await run_agent_workflow("timekeeper", "Chime.")
    return " ".join(result.run_id for result in [*await gather_runs(*handles), last])


def build() -> list[Agent[Any]]:
    """Return the agents."""
    return [timekeeper.build(), Agent(name="spreader", model=SpreaderMind(), tools=[spread])]
