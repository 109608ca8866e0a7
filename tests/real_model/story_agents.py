"""Agents on a real small model. It calls no tools: the calls of sub-agents are a script, every word is the model's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, ModelSettings, OpenAIChatCompletionsModel
from agents.testing import function_call
from agents.usage import Usage
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseCompletedEvent

CALLED = ("poet", "critic")

client = AsyncOpenAI(base_url=f"{os.environ['STORY_MODEL_URL']}/v1", api_key="none")
chat = OpenAIChatCompletionsModel("smollm2", client)


class CallsFirst(Model):
    """Calls the sub-agents in the first turn; the real model answers in the others."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        if has_results(kwargs.get("input", args[1] if len(args) > 1 else "")):
            return await chat.get_response(*args, **kwargs)
        return ModelResponse(output=calls(), usage=Usage(requests=1), response_id=None)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        if has_results(kwargs.get("input", args[1] if len(args) > 1 else "")):
            async for event in chat.stream_response(*args, **kwargs):
                yield event
            return
        response = Response.model_construct(id="first", output=calls(), usage=None, object="response")
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=response, sequence_number=0)


def calls() -> list[Any]:
    """Return the calls of the first turn."""
    return [function_call(name, {"input": "A boat on a lake"}, call_id=f"call_{name}") for name in CALLED]


def has_results(given: Any) -> bool:
    """Whether the sub-agents have answered since the user last spoke."""
    for item in reversed(given if isinstance(given, list) else []):
        if item.get("role") == "user":
            return False
        if item.get("type") == "function_call_output":
            return True
    return False


def settings(tokens: int) -> ModelSettings:
    """Return settings for a short answer."""
    return ModelSettings(max_tokens=tokens, temperature=0.2, include_usage=True)


poet = Agent(name="poet", instructions="You are the poet.", model=chat, model_settings=settings(8))
critic = Agent(name="critic", instructions="You are the critic.", model=chat, model_settings=settings(8))
manager = Agent(
    name="manager",
    instructions="You are the manager.",
    model=CallsFirst(),
    model_settings=settings(32),
    tools=[
        poet.as_tool(tool_name="poet", tool_description="Asks the poet."),
        critic.as_tool(tool_name="critic", tool_description="Asks the critic."),
    ],
)
