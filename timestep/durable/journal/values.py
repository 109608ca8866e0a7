"""What is written into the journal: plain JSON, and envelopes for values and errors.

A step never raises. It returns `{"ok": value}` or `{"error": {...}}`; the error is rebuilt outside the step.
The shapes, in `dbos.operation_outputs.output`:

* `{"ok": <JSON>}`: the value itself;
* `{"ok": {"$type": "<name>", "value": <JSON>}}`: a value of a type registered with `register_serializer`;
* `{"error": {"type", "module", "message", "args", "fields"}}`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

from timestep.client.serializer import json_problem
from timestep.errors import JournalFormatError, ResultTooLargeError, ToolResultError
from timestep.store.json_text import dump_json

Json = Any
TYPE_MARK = "$type"


@dataclass(frozen=True, kw_only=True)
class _TypeSerializer:
    name: str
    kind: type
    dump: Callable[[Any], Json]
    load: Callable[[Json], Any]


_serializers: dict[str, _TypeSerializer] = {}


def register_serializer(
    kind: type, *, dump: Callable[[Any], Json], load: Callable[[Json], Any], name: str | None = None
) -> None:
    """Let tools return values of `kind`: `dump` makes JSON of one, `load` makes one of that JSON.

    Register at import time, in every process that may execute the agent. `name` is stored beside the value and
    defaults to the qualified class name; keep it when the class moves. Registering a type again replaces its entry.
    """
    name = name or f"{kind.__module__}.{kind.__qualname__}"
    _serializers[name] = _TypeSerializer(name=name, kind=kind, dump=dump, load=load)


def encode_value(value: object, *, what: str) -> Json:
    """Return `value` as JSON that `decode_value` turns back into an equal value.

    Args:
        what: The source of the value, such as `tool 'lookup'`, for the error message.

    Raises:
        ToolResultError: the value is not JSON-able and no serializer is registered for its type.
    """
    for entry in _serializers.values():
        if isinstance(value, entry.kind):
            return {TYPE_MARK: entry.name, "value": entry.dump(value)}
    if isinstance(value, BaseModel):  # tools return the SDK's own output types, such as ToolOutputImage
        return {TYPE_MARK: _model_type_name(value, what), "value": value.model_dump(mode="json")}
    if isinstance(value, list) and any(isinstance(item, BaseModel) for item in cast("list[object]", value)):
        return {TYPE_MARK: "list", "value": [encode_value(item, what=what) for item in cast("list[object]", value)]}
    if problem := json_problem(value):
        raise ToolResultError(f"The result of {what} cannot be stored: {problem}.")
    if isinstance(value, dict) and TYPE_MARK in value:
        return {TYPE_MARK: "dict", "value": cast(object, value)}
    return value


def decode_value(data: Json) -> Any:
    """Return the value that `encode_value` encoded.

    Raises:
        JournalFormatError: the value's type is not registered in this process.
    """
    if not isinstance(data, dict) or TYPE_MARK not in data:
        return data
    fields = cast("dict[str, Any]", data)
    name, value = cast(str, fields[TYPE_MARK]), fields["value"]
    if name == "dict":
        return value
    if name == "list":
        return [decode_value(item) for item in value]
    if entry := _serializers.get(name):
        return entry.load(value)
    module_name, _, class_name = name.rpartition(".")
    kind = getattr(sys.modules.get(module_name), class_name, None)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_validate(value)
    raise JournalFormatError(
        f"A recorded tool result has the type {name!r}, which this process does not know.",
        hint="Import the module that defines it, or call `register_serializer` for it, before the executor starts.",
    )


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


def _model_type_name(value: BaseModel, what: str) -> str:
    kind = type(value)
    if "<locals>" in kind.__qualname__ or "." in kind.__qualname__:
        raise ToolResultError(
            f"The result of {what} is a {kind.__qualname__}, a class that another process cannot find."
        )
    return f"{kind.__module__}.{kind.__qualname__}"
