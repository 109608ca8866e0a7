"""A small agent whose runs wait for a person: it looks, and asks to pay twice in one turn; then it files both.

Segment 1: model, `look`; the two calls of `pay` wait. Segment 2: `pay` of the approved one, model, `file`, model.
"""

from __future__ import annotations

import json
from typing import Any

import side_log
from agents import Agent, Model, ModelResponse, function_tool
from agents.usage import Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from scenario import body

from timestep import current_tool_call
from timestep.store import approvals as store

CALLS = {
    0: [("look", {}, "look"), ("pay", {"amount": 1}, "pay_1"), ("pay", {"amount": 2}, "pay_2")],
    3: [("file", {}, "file")],
}
"""What the model asks for, by the number of outputs that it was shown."""


class TillMind(Model):
    """Decides from its input alone."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        await body("model", "till")
        items: list[Any] = input if isinstance(input, list) else [{"role": "user", "content": input}]
        outputs = [item["output"] for item in items if item.get("type") == "function_call_output"]
        usage = Usage(requests=1, input_tokens=10, output_tokens=1, total_tokens=11)
        calls: list[Any] = [
            ResponseFunctionToolCall(type="function_call", call_id=key, name=tool, arguments=json.dumps(arguments))
            for tool, arguments, key in CALLS.get(len(outputs), [])
        ]
        if calls:
            return ModelResponse(output=calls, usage=usage, response_id=None)
        part = ResponseOutputText(type="output_text", text="; ".join(sorted(map(str, outputs))), annotations=[])
        message = ResponseOutputMessage(type="message", id="msg", role="assistant", status="completed", content=[part])
        return ModelResponse(output=[message], usage=usage, response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@function_tool
async def look() -> str:
    """Look what is to be paid."""
    await body("tool", "look", current_tool_call().idempotency_key)
    return "looked"


@function_tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    await body("tool", f"pay {amount}", current_tool_call().idempotency_key)
    return f"paid {amount}"


@function_tool
async def file() -> str:
    """File the receipts."""
    await body("tool", "file", current_tool_call().idempotency_key)
    return "filed"


def build() -> Agent[Any]:
    """Return the agent."""
    return Agent(name="till", model=TillMind(), tools=[look, pay, file])


def watch_decisions() -> None:
    """Let this process be stopped around the transaction of a run's last decision."""
    decided = store.decide

    def watched(connection: Any, approval_id: str, *args: Any, **kwargs: Any) -> Any:
        asked = store.find_approval(connection, approval_id)
        assert asked is not None
        is_last = len(store.open_approvals(connection, asked.run_id)) == 1
        if is_last:
            side_log.stop_thread_at(asked.run_id, "decide before")
        made = decided(connection, approval_id, *args, **kwargs)
        if is_last:
            side_log.stop_thread_at(asked.run_id, "decide uncommitted")
        return made

    store.decide = watched
