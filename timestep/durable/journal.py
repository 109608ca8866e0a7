"""What is written into the journal: plain JSON, and envelopes for values and errors.

A step never raises. It returns `{"ok": value}` or `{"error": {...}}`; the error is rebuilt outside the step.
The shapes, in `dbos.operation_outputs.output`:

* `{"ok": <JSON>}`: the value itself;
* `{"ok": {"$type": "<name>", "value": <JSON>}}`: a value of a type registered with `register_serializer`;
* `{"error": {"type", "module", "message", "args", "fields"}}`.
"""

from __future__ import annotations

import builtins
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from dbos import Serializer
from pydantic import BaseModel

from timestep.errors import (
    InvalidInputError,
    JournalFormatError,
    ResultTooLargeError,
    RunFailedError,
    ToolResultError,
)
from timestep.store.json_text import dump_json

Json = Any
TYPE_MARK = "$type"
ERROR_MARK = "$error"
DATE_MARK = "$datetime"


class JournalSerializer(Serializer):
    """DBOS serializer that writes plain JSON, readable in SQL and in TypeScript, and never reads a pickle."""

    def name(self) -> str:
        """Return the name that DBOS stores beside each value."""
        return "timestep_json"

    def serialize(self, data: Any) -> str:
        """Return `data` as JSON text; an exception becomes its error envelope."""
        if isinstance(data, Exception):
            data = {ERROR_MARK: encode_error(data)}
        try:
            return dump_json(_with_dates(data))
        except InvalidInputError as error:
            raise JournalFormatError(
                f"A value of type {type(data).__name__} cannot be stored as JSON: {error}.",
                hint="Workflow arguments, workflow results and step results are JSON: dicts, lists, text, numbers.",
            ) from error

    def deserialize(self, serialized_data: str) -> Any:
        """Return the value of JSON text written by `serialize`."""
        try:
            data = json.loads(serialized_data)
        except ValueError as error:
            raise JournalFormatError("A stored value is not JSON; it is refused, not loaded.") from error
        if isinstance(data, dict) and set(cast("dict[str, Any]", data)) == {ERROR_MARK}:
            return decode_error(data[ERROR_MARK])
        return _without_dates(data)


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
    if problem := _json_problem(value):
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


def check_size(envelope: Json, *, limit_bytes: int, what: str) -> None:
    """Refuse an envelope whose JSON is larger than `limit_bytes`.

    Raises:
        ResultTooLargeError: it is larger.
    """
    size = len(dump_json(envelope))
    if size > limit_bytes:
        raise ResultTooLargeError(
            f"The result of {what} has {size:,} bytes, more than the limit of {limit_bytes:,} for one step."
        )


def encode_error(error: BaseException) -> dict[str, Json]:
    """Return the error envelope: type, module, message and what of `args` and fields is JSON-able."""
    fields = {key: value for key, value in vars(error).items() if not key.startswith("_") and not _json_problem(value)}
    message = str(error)
    envelope: dict[str, Json] = {
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "message": message,
    }
    arguments = [value if not _json_problem(value) else repr(value) for value in error.args]
    if arguments != [message]:
        envelope["args"] = arguments
    if fields:
        envelope["fields"] = fields
    return envelope


def decode_error(envelope: dict[str, Json]) -> Exception:
    """Return the error of an envelope, of its own class where this process has loaded it, else RunFailedError.

    The class is looked up among the modules that are loaded already; nothing is imported by a name from the
    database, and no constructor of the class runs.
    """
    kind = getattr(sys.modules.get(envelope.get("module", ""), builtins), envelope.get("type", ""), None)
    message = envelope.get("message", "")
    if isinstance(kind, type) and issubclass(kind, Exception):
        error = kind.__new__(kind)
        error.args = tuple(envelope.get("args", [message]))
        for key, value in envelope.get("fields", {}).items():
            _set_field(error, key, value)
        for base in kind.__mro__:  # declared fields that could not be stored are None, not missing
            for key in inspect.get_annotations(base):
                if not hasattr(error, key):
                    _set_field(error, key, None)
        return error
    return RunFailedError(f"{envelope.get('type', 'Error')}: {message}")


def _with_dates(data: Any) -> Any:
    """Replace datetimes among the arguments of a workflow: DBOS passes one to scheduled workflows."""
    if isinstance(data, dict) and "args" in data:
        fields = cast("dict[str, Any]", data)
        args = [{DATE_MARK: each.isoformat()} if isinstance(each, datetime) else each for each in fields["args"]]
        return fields | {"args": args}
    return data


def _without_dates(data: Any) -> Any:
    if isinstance(data, dict) and isinstance(cast("dict[str, Any]", data).get("args"), list):
        fields = cast("dict[str, Any]", data)
        args = [
            datetime.fromisoformat(each[DATE_MARK]) if isinstance(each, dict) and DATE_MARK in each else each
            for each in fields["args"]
        ]
        return fields | {"args": tuple(args)}
    return data


def _set_field(error: Exception, key: str, value: Json) -> None:
    try:
        setattr(error, key, value)
    except AttributeError:  # a read-only property: it is computed from other fields
        return


def _model_type_name(value: BaseModel, what: str) -> str:
    kind = type(value)
    if "<locals>" in kind.__qualname__ or "." in kind.__qualname__:
        raise ToolResultError(
            f"The result of {what} is a {kind.__qualname__}, a class that another process cannot find."
        )
    return f"{kind.__module__}.{kind.__qualname__}"


def _json_problem(value: object) -> str:
    """Return why `value` does not survive JSON unchanged, or an empty string."""
    try:
        text = dump_json(value)
    except InvalidInputError as error:
        return str(error)
    if json.loads(text) != value:
        return f"JSON changes it ({type(value).__name__} with keys or items that are not JSON)"
    return ""
