"""What a tool changes in the run's context, recorded with its step.

A replayed tool body does not run, so its changes would be lost. They are recorded by top-level key: which were set,
to what JSON value, and which were removed. On a replay they are applied in the model's order of the calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter

from timestep.durable.journal.values import Json
from timestep.errors import InvalidInputError, NotDurableError
from timestep.store.json_text import dump_json


def dump_context(context: object, *, hint: str) -> Json:
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


def load_context(data: Json, context_type: type | None) -> Any:
    """Return the context of its JSON: plain JSON, or an instance of the registered type."""
    if context_type is None or data is None:
        return data
    return TypeAdapter(context_type).validate_python(data)


def is_typed(context: object) -> bool:
    """Whether a context is an instance of a class of the caller's own."""
    return isinstance(context, BaseModel) or dataclasses.is_dataclass(context)


def fingerprint(context: object) -> dict[str, str]:
    """Return the JSON text of each top-level value of a context; what is not JSON-able is left out."""
    return {key: text for key, value in _top_level(context).items() if (text := _text(value)) is not None}


def changes_since(before: dict[str, str], context: object) -> Json:
    """Return `{"set": {...}, "removed": [...]}` against an earlier fingerprint, or None when nothing changed."""
    now = _top_level(context)
    after = fingerprint(context)
    changed = {key: now[key] for key, text in after.items() if before.get(key) != text}
    removed = [key for key in before if key not in now]
    return {"set": changed, "removed": removed} if changed or removed else None


def apply_changes(context: Any, changes: Json) -> None:
    """Make recorded changes again on a replay."""
    if not changes:
        return
    if isinstance(context, MutableMapping):
        mapping = cast("MutableMapping[str, Any]", context)
        mapping.update(changes["set"])
        for key in changes["removed"]:
            mapping.pop(key, None)
    elif is_typed(context):
        values = TypeAdapter(type(context)).validate_python({**_top_level(context), **changes["set"]})
        for key in changes["set"]:
            setattr(context, key, getattr(values, key))


def _top_level(context: object) -> dict[str, Any]:
    if isinstance(context, dict):
        return dict(cast("dict[str, Any]", context))
    if is_typed(context):
        try:
            return TypeAdapter(type(context)).dump_python(context, mode="json")
        except Exception:  # noqa: BLE001 - a context that stopped being JSON-able is left alone, as plain runs do
            return {}
    return {}


def _text(value: object) -> str | None:
    try:
        return dump_json(value)
    except InvalidInputError:
        return None
