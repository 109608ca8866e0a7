"""What is written into the journal: plain JSON, and envelopes for values and errors.

A step never raises. It returns `{"ok": value}` or `{"error": {...}}`; the error is rebuilt outside the step.
The shapes, in `dbos.operation_outputs.output`:

* `{"ok": <JSON>}`: the value itself;
* `{"ok": {"$type": "structure", "value": <tree>}}`: a value that JSON does not know, see `durable/values/structure.py`;
* `{"ok": {"$type": "<name>", "value": <JSON>}}`: a value of a type registered with `register_serializer`;
* `{"error": {"type", "module", "message", "args", "fields"}}`.

Beside `ok` of a tool call: `shown`, what the model reads where it is not the value's own text, and `note`, what it
reads besides.
"""

from __future__ import annotations

from typing import Any, cast

from timestep.durable.values.keeping import keep, restore
from timestep.durable.values.structure import TYPE_MARK, UNORDERED, NotKept
from timestep.errors import ResultTooLargeError, ToolResultError
from timestep.store.json_text import dump_json

Json = Any


def encode_value(value: object, *, what: str, name: str = "result") -> Json:
    """Return `value` as JSON that `decode_value` turns back into an equal value.

    Args:
        what: The source of the value, such as `the tool 'lookup'`, for the error message.
        name: What the value is called in the message: parts of it are `result.price`.

    Raises:
        ToolResultError: it would not come back as it is; the message names the part, and says why.
    """
    try:
        return keep(value, name=name)
    except NotKept as error:
        raise ToolResultError(f"The result of {what} cannot be stored: {error}.") from error


def decode_value(data: Json) -> Any:
    """Return the value that `encode_value` encoded.

    Raises:
        JournalFormatError: the value's type is not known in this process.
    """
    return restore(data)


def has_type(data: Json) -> bool:
    """Whether an encoded value is none of plain JSON."""
    return isinstance(data, dict) and TYPE_MARK in data


def is_unordered(data: Json) -> bool:
    """Whether an encoded value holds a set of several items, whose text is another one in each process."""
    if isinstance(data, list):
        return any(is_unordered(part) for part in cast("list[Any]", data))
    if not isinstance(data, dict):
        return False
    node = cast("dict[str, Any]", data)
    if node.get(TYPE_MARK) in UNORDERED and len(node["items"]) > 1:
        return True
    return any(is_unordered(part) for part in node.values())


LONGEST_CHARACTER = 12
"""Bytes that one character of text takes as JSON at the most: two escapes of a surrogate pair."""


def check_size(value: Json, *, limit_bytes: int, what: str) -> None:
    """Refuse a value whose JSON is larger than `limit_bytes`.

    Raises:
        ResultTooLargeError: it is larger.
    """
    if not isinstance(value, str) or len(value) * LONGEST_CHARACTER >= limit_bytes:
        dump_checked(value, limit_bytes=limit_bytes, what=what)


def dump_checked(value: Json, *, limit_bytes: int, what: str) -> str:
    """Return a value as the journal stores it.

    Raises:
        ResultTooLargeError: that is larger than `limit_bytes`.
    """
    text = dump_json(value)
    size = len(text.encode())
    if size > limit_bytes:
        raise ResultTooLargeError(
            f"The result of {what} has {size:,} bytes, more than the limit of {limit_bytes:,} for one step."
        )
    return text
