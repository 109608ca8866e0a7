"""A small agent whose runs are held, cancelled and taken over: it carries boxes one after the other.

Step ids: 1 model, 2 first box, 3 model, 4 second box, 5 model. `how` says what the body of a box does while it is held.
"""

from __future__ import annotations

import json
from typing import Any

import side_log
from agents import (
    Agent,
    GuardrailFunctionOutput,
    Model,
    ModelBehaviorError,
    ModelProvider,
    ModelResponse,
    function_tool,
    input_guardrail,
)
from agents.usage import Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from scenario import body, thread_body

from timestep import current_tool_call

BOXES = 2


class PorterMind(Model):
    """Asks for one box after the other, then answers. Fails in its third turn while the file `broken` is there."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        await body("model", "porter")
        items: list[Any] = input if isinstance(input, list) else [{"role": "user", "content": input}]
        last_user = max(number for number, item in enumerate(items) if item.get("role") == "user")
        carried = sum(item.get("type") == "function_call_output" for item in items[last_user:])
        if carried == BOXES and (side_log.folder() / "broken").exists():
            raise ModelBehaviorError("the model is broken")
        usage = Usage(requests=1, input_tokens=10, output_tokens=1, total_tokens=11)
        if carried < BOXES:
            tool = items[last_user]["content"]
            call = ResponseFunctionToolCall(
                type="function_call", call_id=f"box_{carried}", name=tool, arguments=json.dumps({"number": carried})
            )
            return ModelResponse(output=[call], usage=usage, response_id=None)
        part = ResponseOutputText(
            type="output_text", text=f"carried {carried} boxes, saw {len(items)} items", annotations=[]
        )
        message = ResponseOutputMessage(type="message", id="msg", role="assistant", status="completed", content=[part])
        return ModelResponse(output=[message], usage=usage, response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@function_tool
async def carry(number: int) -> str:
    """Carry a box."""
    call = current_tool_call()
    await body("tool", "carry", call.idempotency_key)
    return f"box {number}, attempt {call.attempt}"


@function_tool
def drag(number: int) -> str:
    """Drag a box, in a thread."""
    call = current_tool_call()
    thread_body("tool", "drag", call.idempotency_key)
    return f"box {number}, attempt {call.attempt}"


@input_guardrail(run_in_parallel=False)
async def is_polite(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)


class Porters(ModelProvider):
    """Has the mind of the porter, by the name `porter`."""

    def get_model(self, model_name: str | None) -> Model:
        if model_name != "porter":
            raise ValueError(model_name)
        return PorterMind()


def build_named() -> Agent[Any]:
    """Return the agent with the name of its model, which a provider must find."""
    tools: list[Any] = [carry, drag]
    return Agent(name="porter", model="porter", tools=tools)


def build(code: str = "") -> Agent[Any]:
    """Return the agent. Its input is the name of the tool to use.

    `code` is what another version of the program changed: "guarded" has steps of its own, "empty" lost its tools.
    """
    guardrails = [is_polite] if code == "guarded" else []
    tools = [] if code == "empty" else [carry, drag]
    return Agent(name="porter", model=PorterMind(), tools=tools, input_guardrails=guardrails)
