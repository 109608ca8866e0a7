"""Which model the agents use: that of OpenAI with OPENAI_API_KEY, else one that rehearses."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents import Model, ModelResponse
from agents.usage import Usage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

Decide = Callable[[str, list[str]], str | tuple[str, dict[str, Any]]]
"""From what the user said last, and the tool results since, an answer, or a tool and its arguments."""


def default_model(rehearse: Decide | None = None) -> Model | None:
    """Return the model of an agent; None is the default of the Agents SDK. Without a key it acts as `rehearse` says."""
    return None if os.environ.get("OPENAI_API_KEY") else EchoModel(rehearse or _echo)


class EchoModel(Model):
    """Answers without a key and without a network."""

    model = "echo"

    def __init__(self, decide: Decide) -> None:
        self._decide = decide

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the answer."""
        return ModelResponse(output=[self._answer(input)], usage=Usage(requests=1), response_id=None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the answer word by word."""
        answer = self._answer(input)
        part = answer.content[0] if isinstance(answer, ResponseOutputMessage) else None
        words = part.text.split(" ") if isinstance(part, ResponseOutputText) else []
        for number, word in enumerate(words):
            yield ResponseTextDeltaEvent(
                type="response.output_text.delta", delta=word if number == 0 else f" {word}", item_id="answer",
                output_index=0, content_index=0, sequence_number=number, logprobs=[],
            )  # fmt: skip
        final = Response(
            id="answer", created_at=0, model=self.model, object="response", output=[answer],
            tool_choice="auto", tools=[], parallel_tool_calls=True,
        )  # fmt: skip
        yield ResponseCompletedEvent(type="response.completed", response=final, sequence_number=len(words))

    def _answer(self, input: Any) -> ResponseOutputMessage | ResponseFunctionToolCall:
        said, results = (input if isinstance(input, str) else ""), list[str]()
        for item in input if isinstance(input, list) else []:
            if item.get("role") == "user" and isinstance(item.get("content"), str):
                said, results = item["content"], []
            elif item.get("type") == "function_call_output":
                results.append(str(item["output"]))
        decided = self._decide(said, results)
        if isinstance(decided, str):
            return _message(decided)
        name, arguments = decided
        call_id = f"call_{len(results) + 1}"
        return ResponseFunctionToolCall(
            type="function_call", call_id=call_id, name=name, arguments=json.dumps(arguments)
        )


def _echo(said: str, results: list[str]) -> str:
    return f"You said: {said}\n(This is the echo model: set OPENAI_API_KEY for a real one.)"


def _message(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="answer", type="message", role="assistant", status="completed", content=[part])
