"""The input of a run as people and programs write it, told apart from what is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from timestep.errors import InvalidInputError

_ROLES = ("user", "assistant", "system", "developer")


def check_item(item: Any, number: int) -> dict[str, Any]:
    """Return an item of a run's input as a dict of its own; `number` is its place, from 0.

    Raises:
        InvalidInputError: it is no message and has no type; the message names the item.
    """
    hint = 'An item looks like {"role": "user", "content": "Hello"}, or has a "type" of the Responses API.'
    if not isinstance(item, Mapping):
        raise InvalidInputError(
            f"Item {number} of the input is {type(item).__name__}, not a dict: {item!r}.", hint=hint
        )
    fields = cast("Mapping[str, Any]", item)
    kind, role = fields.get("type"), fields.get("role")
    if kind in (None, "message"):
        if role not in _ROLES:
            raise InvalidInputError(
                f"Item {number} of the input has the role {role!r}; roles are {', '.join(_ROLES)}.", hint=hint
            )
        if not isinstance(fields.get("content"), (str, list)):
            raise InvalidInputError(
                f"Item {number} of the input has the content {fields.get('content')!r}; it is text or a list of parts.",
                hint=hint,
            )
    elif not isinstance(kind, str):
        raise InvalidInputError(f"Item {number} of the input has the type {kind!r}; a type is text.", hint=hint)
    return dict(fields)
