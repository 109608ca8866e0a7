"""The agents of these tests. Their models decide from their input; every body leaves a line in `bodies.txt`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from agents import Agent, Model, ModelResponse, function_tool
from agents.usage import Usage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

BODIES = Path("bodies.txt")
RELEASE = Path("release")
"""While this file is missing, the tool `look_up` does not return from order 99."""

Call = tuple[str, str, dict[str, Any]]
Script = Callable[[set[str], str], "list[Call] | str"]


class Scripted(Model):
    """Asks for calls or answers, by the calls that have a result and what the user said first."""

    def __init__(self, name: str, script: Script) -> None:
        self.model, self.script = name, script

    def _move(self, input: Any) -> list[Any]:
        items: list[Any] = input if isinstance(input, list) else [{"role": "user", "content": input}]
        done = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
        said = next(item["content"] for item in reversed(items) if item.get("role") == "user")
        leave(f"model {self.model} {len(done)}")
        move = self.script(done, said)
        if isinstance(move, str):
            part = ResponseOutputText(type="output_text", text=move, annotations=[])
            return [ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[part])]
        return [
            ResponseFunctionToolCall(type="function_call", call_id=call_id, name=name, arguments=json.dumps(arguments))
            for call_id, name, arguments in move
        ]

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        usage = Usage(requests=1, input_tokens=1000, output_tokens=234, total_tokens=1234)
        return ModelResponse(output=self._move(input), usage=usage, response_id=None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        output = self._move(input)
        text = output[0].content[0].text if output[0].type == "message" else ""
        for number, word in enumerate(text.split(" ") if text else []):
            yield ResponseTextDeltaEvent(
                type="response.output_text.delta", delta=word if number == 0 else f" {word}", item_id="m",
                output_index=0, content_index=0, sequence_number=number, logprobs=[],
            )  # fmt: skip
        final = Response.model_validate(
            {
                "id": "r", "created_at": 0, "model": self.model, "object": "response", "output": output,
                "tool_choice": "auto", "tools": [], "parallel_tool_calls": True,
                "usage": {
                    "input_tokens": 1000, "output_tokens": 234, "total_tokens": 1234,
                    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                    "output_tokens_details": {"reasoning_tokens": 0},
                },
            }
        )  # fmt: skip
        yield ResponseCompletedEvent(type="response.completed", response=final, sequence_number=99)


def leave(line: str) -> None:
    with BODIES.open("a") as file:
        file.write(f"{line}\n")


@function_tool
async def look_up(order: int) -> str:
    """Look an order up."""
    leave(f"tool look_up {order}")
    while order == 99 and not RELEASE.exists():
        await asyncio.sleep(0.05)
    return f"order {order} is on its way"


@function_tool(needs_approval=True)
async def refund(order: int) -> str:
    """Pay the money of an order back."""
    return f"order {order} is paid back"


def _support(done: set[str], said: str) -> list[Call] | str:
    order = next((int(word) for word in said.split() if word.isdigit()), 43)
    if "call_1" not in done:
        return [("call_1", "look_up", {"order": order})]
    return f"Your order {order} is on its way."


def _clerk(done: set[str], said: str) -> list[Call] | str:
    return "It is paid back." if done else [("call_1", "refund", {"order": 7})]


def _desk(done: set[str], said: str) -> list[Call] | str:
    if not done:
        return [("ask", "ask_support", {"input": "order 5"}), ("look", "look_up", {"order": 6})]
    return [("over", "transfer_to_closer", {})]


def _broken(done: set[str], said: str) -> list[Call] | str:
    raise ValueError("the model is out of order")


support = Agent[Any](name="support", tools=[look_up], model=Scripted("tiny-1", _support))
clerk = Agent[Any](name="clerk", tools=[refund], model=Scripted("tiny-2", _clerk))
broken = Agent[Any](name="broken", model=Scripted("tiny-3", _broken))
closer = Agent[Any](name="closer", model=Scripted("tiny-4", lambda done, said: "Good bye."))
desk = Agent[Any](
    name="desk",
    tools=[support.as_tool("ask_support", "Ask the support."), look_up],
    handoffs=[closer],
    model=Scripted("tiny-5", _desk),
)
no_agent = "text"
