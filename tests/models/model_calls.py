"""Calls of a model as the SDK makes them, for the tests."""

from __future__ import annotations

from typing import Any

from agents import Model, ModelResponse, ModelSettings, ModelTracing

Json = dict[str, Any]


def arguments(items: Any = "Hi", **given: Any) -> Json:
    """Return what a model is called with."""
    absent = dict.fromkeys(
        ("system_instructions", "previous_response_id", "conversation_id", "prompt", "output_schema")
    )
    plain = {"model_settings": ModelSettings(), "tools": [], "handoffs": [], "tracing": ModelTracing.DISABLED}
    return absent | plain | {"input": items} | given


async def ask(model: Model, items: Any = "Hi", **given: Any) -> ModelResponse:
    """Call a model."""
    return await model.get_response(**arguments(items, **given))


async def stream(model: Model, items: Any = "Hi", **given: Any) -> list[Any]:
    """Call a model and return the events of its stream."""
    return [event async for event in model.stream_response(**arguments(items, **given))]
