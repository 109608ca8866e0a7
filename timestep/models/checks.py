"""Small calls of a model that show what it can do: text, a tool call, structured output, a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai
from agents import AgentOutputSchema, Model, ModelResponse, ModelSettings, ModelTracing, function_tool
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

CHECKS = ("text", "tool call", "structured output", "stream")
SETTINGS = ModelSettings(max_tokens=1000)


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """Whether a model did what was asked, and what it did, or what went wrong."""

    name: str
    works: bool
    detail: str
    seconds: float
    hint: str | None = None


class City(BaseModel):
    """A city, as the check of structured output asks for it."""

    name: str
    country: str


@function_tool
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


async def check_model(model: Model, *, timeout_seconds: float) -> AsyncGenerator[ModelCheck]:
    """Yield each check as it is done; after a first one that failed the others may fail alike."""
    checks: tuple[Callable[[Model], Awaitable[str]], ...] = (_text, _tool_call, _structured_output, _stream)
    for name, check in zip(CHECKS, checks, strict=True):
        started = time.monotonic()
        works, hint = True, None
        try:
            detail = await asyncio.wait_for(check(model), timeout_seconds)
        except TimeoutError:
            works, detail = False, f"no answer within {timeout_seconds:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the check found
            works, detail, hint = False, _said(error), getattr(error, "hint", None)
            if isinstance(error, openai.APIConnectionError):
                hint = "Look at its address and whether it answers: `timestep models list`."
        yield ModelCheck(name=name, works=works, detail=detail, seconds=round(time.monotonic() - started, 3), hint=hint)


async def _text(model: Model) -> str:
    return _shown(_text_of(await _ask(model, "Answer with one word: which colour has the sky on a clear day?")))


async def _tool_call(model: Model) -> str:
    response = await _ask(model, "What is 2 plus 3? Call the tool `add` to find out.", tools=[add])
    for item in response.output:
        if isinstance(item, ResponseFunctionToolCall) and item.name == add.name:
            json.loads(item.arguments)
            return f"{item.name}({item.arguments})"
    raise ValueError(f"it called no tool, and said: {_shown(_text_of(response))}")


async def _structured_output(model: Model) -> str:
    schema = AgentOutputSchema(City)
    response = await _ask(model, "Name the capital of Norway, as JSON with name and country.", output_schema=schema)
    found = schema.validate_json(_text_of(response))
    return _shown(found.model_dump_json())


async def _stream(model: Model) -> str:
    pieces, is_whole = 0, False
    async for event in model.stream_response(**_call("Count from one to five.")):
        pieces += event.type == "response.output_text.delta"
        is_whole = is_whole or event.type == "response.completed"
    if not pieces or not is_whole:
        raise ValueError("no text came in pieces" if is_whole else "the stream ended before the answer did")
    return f"{pieces} pieces"


async def _ask(model: Model, text: str, **options: Any) -> ModelResponse:
    return await model.get_response(**_call(text, **options))


def _call(text: str, **options: Any) -> dict[str, Any]:
    absent = dict.fromkeys(
        ("system_instructions", "previous_response_id", "conversation_id", "prompt", "output_schema")
    )
    given = {"input": text, "model_settings": SETTINGS, "tools": [], "handoffs": [], "tracing": ModelTracing.DISABLED}
    return absent | given | options


def _text_of(response: ModelResponse) -> str:
    texts = [part for item in response.output if item.type == "message" for part in item.content]
    found = "".join(part.text for part in texts if part.type == "output_text")
    if not found.strip():
        raise ValueError("it said nothing")
    return found


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
