"""Which model the agents use: that of OpenAI with OPENAI_API_KEY, else one that repeats what it is told."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from agents import Model, ModelResponse
from agents.usage import Usage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)


def default_model() -> Model | None:
    """Return the model of the agents; None is the default of the Agents SDK."""
    return None if os.environ.get("OPENAI_API_KEY") else EchoModel()


class EchoModel(Model):
    """Answers without a key and without a network."""

    model = "echo"

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the answer."""
        return ModelResponse(output=[_message(_answer(input))], usage=Usage(requests=1), response_id=None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the answer word by word."""
        answer = _answer(input)
        words = answer.split(" ")
        for number, word in enumerate(words):
            yield ResponseTextDeltaEvent(
                type="response.output_text.delta", delta=word if number == 0 else f" {word}", item_id="answer",
                output_index=0, content_index=0, sequence_number=number, logprobs=[],
            )  # fmt: skip
        final = Response(
            id="answer", created_at=0, model=self.model, object="response", output=[_message(answer)],
            tool_choice="auto", tools=[], parallel_tool_calls=True,
        )  # fmt: skip
        yield ResponseCompletedEvent(type="response.completed", response=final, sequence_number=len(words))


def _answer(input: Any) -> str:
    """Return what the last user message says, and how to get a real answer."""
    said = input if isinstance(input, str) else ""
    for item in input if isinstance(input, list) else []:
        if isinstance(item, dict) and item.get("role") == "user" and isinstance(item.get("content"), str):
            said = item["content"]
    return f"You said: {said}\n(This is the echo model: set OPENAI_API_KEY for a real one.)"


def _message(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="answer", type="message", role="assistant", status="completed", content=[part])
