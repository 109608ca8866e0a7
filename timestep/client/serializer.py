"""How a value is written into DBOS's tables, by executors and clients alike: plain JSON, errors as envelopes.

An error envelope is `{"type", "module", "message", "args", "fields", "cause"}`; `cause` is that of the error which it
was raised from. Nothing here imports the Agents SDK.
"""

from __future__ import annotations

import builtins
import inspect
import json
import sys
from datetime import datetime
from typing import Any, cast

import dbos._serialization as dbos_serialization
from dbos import Serializer

from timestep.client.class_names import MAIN, find_in_module, importable_name
from timestep.errors import InvalidInputError, JournalFormatError, RunFailedError, TimestepError
from timestep.store.json_text import dump_json

Json = Any
ERROR_MARK = "$error"
DATE_MARK = "$datetime"
MAX_CAUSES = 3


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


def refuse_pickles() -> None:
    """Make DBOS refuse rows that are marked as pickles, in this process's executors and clients.

    DBOS unpickles such rows whatever serializer is configured, so who may write a row could run code here.
    """

    def refuse(*arguments: Any) -> Any:
        raise JournalFormatError(
            "A stored value is marked as a Python pickle; it is refused, never loaded.",
            hint="It was written by another program. Give Timestep a database of its own, or delete the workflow.",
        )

    dbos_serialization.DefaultSerializer.deserialize = refuse  # type: ignore[method-assign]


def encode_error(error: BaseException, *, causes: int = MAX_CAUSES) -> dict[str, Json]:
    """Return the error envelope: type, module, message, what of `args` and fields is JSON-able, and its causes."""
    fields = {key: value for key, value in vars(error).items() if not key.startswith("_") and not json_problem(value)}
    message = str(error)
    envelope: dict[str, Json] = {
        "type": type(error).__qualname__,
        "module": importable_name() if type(error).__module__ == MAIN else type(error).__module__,
        "message": message,
    }
    given: Any = error.args
    if isinstance(error, OSError) and type(error).__module__ == "builtins":
        given = error.__reduce__()[1]  # the file name is not among `args`
    arguments = [value if not json_problem(value) else repr(value) for value in given]
    if arguments != [message]:
        envelope["args"] = arguments
    if fields:
        envelope["fields"] = fields
    if causes and error.__cause__ is not None:
        envelope["cause"] = encode_error(error.__cause__, causes=causes - 1)
    return envelope


def decode_error(envelope: dict[str, Json]) -> Exception:
    """Return the error of an envelope, of its own class where this process has loaded it, else RunFailedError.

    The class is looked up among the modules that are loaded already; nothing is imported by a name from the
    database, and no constructor of a class runs that is not Python's own.
    """
    module, name = envelope.get("module") or builtins.__name__, envelope.get("type", "")
    kind = find_in_module(module, name) or (None if module in sys.modules else getattr(builtins, name, None))
    message = envelope.get("message", "")
    if isinstance(kind, type) and issubclass(kind, Exception):
        error = _bare_error(kind, tuple(envelope.get("args", [message])))
        if error is None:
            return RunFailedError(f"{kind.__name__}: {message}")
        known = {"message": message} if issubclass(kind, TimestepError) else {}  # SQL writes no fields
        for key, value in {**known, **envelope.get("fields", {})}.items():
            _set_field(error, key, value)
        for base in kind.__mro__:  # declared fields that could not be stored are None, not missing
            for key in inspect.get_annotations(base):
                if not hasattr(error, key):
                    _set_field(error, key, None)
        if "cause" in envelope:
            error.__cause__ = decode_error(envelope["cause"])
        return error
    return RunFailedError(f"{envelope.get('type', 'Error')}: {message}")


_PLAIN = (str, int, bool, type(None))


def json_problem(value: object) -> str:
    """Return why `value` does not survive JSON unchanged, or an empty string."""
    if type(value) in _PLAIN:
        return ""
    try:
        text = dump_json(value)
    except InvalidInputError as error:
        return str(error)
    if json.loads(text) != value:
        return f"JSON changes it ({type(value).__name__} with keys or items that are not JSON)"
    return ""


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


def _bare_error(kind: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    """Return an error with its `args` alone; None for a class that cannot be made without its constructor."""
    try:
        if kind.__module__ == "builtins":  # some keep their values outside `args`, such as UnicodeEncodeError
            return kind(*args)
        error = kind.__new__(kind)
    except (TypeError, ValueError):
        return None
    error.args = args
    return error


def _set_field(error: Exception, key: str, value: Json) -> None:
    try:
        setattr(error, key, value)
    except AttributeError:  # a read-only property: it is computed from other fields
        return


if list(inspect.signature(dbos_serialization.DefaultSerializer.deserialize).parameters) != ["cls", "serialized_data"]:
    raise ImportError("DBOS reads pickles by another function: this version of timestep works with dbos>=3.4,<3.5")
