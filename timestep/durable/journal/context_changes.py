"""What a tool changes in the run's context, recorded with its step.

A replayed tool body does not run, so its changes would be lost. They are recorded by top-level key: which were set,
to what JSON value, and which were removed. On a replay they are applied in the model's order of the calls.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, cast

from pydantic import TypeAdapter

from timestep.durable.journal.values import Json
from timestep.durable.states.context import is_typed
from timestep.errors import InvalidInputError
from timestep.store.json_text import dump_json


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
