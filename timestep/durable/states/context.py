"""A run's context as JSON, and back: plain JSON, or an instance of the type that is registered with the agent."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, TypeAdapter

from timestep.errors import NotDurableError
from timestep.store.json_text import dump_json


def dump_context(context: object, *, hint: str) -> Any:
    """Return a context as JSON.

    Raises:
        NotDurableError: the context is not JSON-able.
    """
    if context is None:
        return None
    try:
        data = TypeAdapter(type(context)).dump_python(context, mode="json") if is_typed(context) else context
        dump_json(data)
    except Exception as error:
        raise NotDurableError(
            f"The context of type {type(context).__qualname__} is not JSON-able: {error}.", hint=hint
        ) from error
    return data


def load_context(data: Any, context_type: type | None) -> Any:
    """Return the context of its JSON: plain JSON, or an instance of the registered type."""
    if context_type is None or data is None:
        return data
    return TypeAdapter(context_type).validate_python(data)


def is_typed(context: object) -> bool:
    """Whether a context is an instance of a class of the caller's own."""
    return isinstance(context, BaseModel) or dataclasses.is_dataclass(context)
