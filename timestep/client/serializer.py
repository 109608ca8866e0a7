"""How a value is written into DBOS's tables, by executors and clients alike: plain JSON, errors as envelopes.

An error envelope is `{"type", "module", "message", "args", "fields", "exceptions", "frames", "cause"}`. `exceptions`
are those of a group; `frames` are `{"file", "line", "function"}` of the code outside of Timestep and the SDK that
raised it, the innermost last; `cause` is that of the error which it was raised from.
Nothing here imports the Agents SDK.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import json
import sys
import traceback
from datetime import datetime
from types import MemberDescriptorType
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
MOST_FRAMES = 30
"""Of an error, the innermost ones."""

_FRAMES = "_frames stored"
_INNER = ("timestep", "agents", "dbos", "asyncio", "concurrent")
"""Packages whose frames say nothing about the user's code."""

MOST_EXCEPTIONS = 20
"""Of a group, that are stored."""


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
    """Return the error envelope: type, module, message, what of `args` and fields is JSON-able, and its causes.

    Whatever the error's own code does, it does not raise.
    """
    message = _text_of(error)
    envelope: dict[str, Json] = {
        "type": type(error).__qualname__,
        "module": importable_name() if type(error).__module__ == MAIN else type(error).__module__,
        "message": message,
    }
    arguments = [value if _is_json(value) else _repr_of(value) for value in _arguments_of(error)]
    if arguments != [message]:
        envelope["args"] = arguments
    if fields := {name: value for name, value in _fields_of(error).items() if _is_json(value)}:
        envelope["fields"] = fields
    if frames := _frames_of(error):
        envelope["frames"] = frames
    if causes and isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions[:MOST_EXCEPTIONS]
        envelope["exceptions"] = [encode_error(each, causes=causes - 1) for each in inner]
    if causes and error.__cause__ is not None:
        envelope["cause"] = encode_error(error.__cause__, causes=causes - 1)
    return envelope


def decode_error(envelope: dict[str, Json]) -> Exception:
    """Return the error of an envelope, of its own class where this process has loaded it, else RunFailedError.

    The class is looked up among the modules that are loaded already; nothing is imported by a name from the
    database, and no constructor of a class runs that is not Python's own. The text is that of the envelope: one whose
    class makes it of what was not kept is of a subclass that says it.
    """
    kind, message = _class_of(envelope), envelope.get("message", "")
    error = _rebuilt(kind, envelope, message) if kind is not None else None
    if error is None:
        return RunFailedError(f"{envelope.get('type', 'Error')}: {message}")
    known = {"message": message} if isinstance(error, TimestepError) else {}  # SQL writes no fields
    for name, value in {**known, **envelope.get("fields", {})}.items():
        _set_field(error, name, value)
    for base in type(error).__mro__:  # declared fields that could not be stored are None, not missing
        for name in inspect.get_annotations(base):
            if not _has(error, name):
                _set_field(error, name, None)
    if isinstance(error, TimestepError):
        error.add_note(f"hint: {error.hint}")
    if "frames" in envelope:
        _set_field(error, _FRAMES, envelope["frames"])
    if "cause" in envelope:
        _set_field(error, "__cause__", decode_error(envelope["cause"]))
    return error if _says(error, message) else _saying(error, message)


def frames_of(envelope: dict[str, Json]) -> list[str]:
    """Return where an error, or the first of its causes that has frames, was raised: one line each, as Python's."""
    while not envelope.get("frames") and "cause" in envelope:
        envelope = envelope["cause"]
    return [
        f'File "{frame["file"]}", line {frame["line"]}, in {frame["function"]}' for frame in envelope.get("frames", [])
    ]


def _frames_of(error: BaseException) -> list[Json]:
    """Return the frames of an error, without locals; those of one from the journal are those that were stored."""
    if stored := error.__dict__.get(_FRAMES):
        return stored
    return [
        {"file": frame.f_code.co_filename, "line": line, "function": frame.f_code.co_qualname}
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _INNER
    ][-MOST_FRAMES:]


def _arguments_of(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError) and type(error).__module__ == "builtins":
        return cast("tuple[Any, ...]", error.__reduce__()[1])  # the file name is not among `args`
    return error.args


def _fields_of(error: BaseException) -> dict[str, Any]:
    """Return the public fields of an error, those in slots too."""
    fields = {name: value for name, value in error.__dict__.items() if not name.startswith("_")}
    for base in type(error).__mro__:
        if base.__module__ != "builtins":
            for name, member in vars(base).items():
                if isinstance(member, MemberDescriptorType) and not name.startswith("_") and _has(error, name):
                    fields.setdefault(name, getattr(error, name))
    return fields


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - code of users
        return f"{', '.join(map(_repr_of, error.args))} (its text raises {type(failure).__name__})".lstrip()


def _says(error: BaseException, message: str) -> bool:
    try:
        return str(error) == message
    except Exception:  # noqa: BLE001 - code of users
        return False


def _repr_of(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - code of users
        return f"<{type(value).__qualname__}>"


def _is_json(value: object) -> bool:
    try:
        return not json_problem(value)
    except Exception:  # noqa: BLE001 - comparing what is no plain value may raise anything
        return False


def _has(error: Exception | BaseException, name: str) -> bool:
    try:
        return hasattr(error, name)
    except Exception:  # noqa: BLE001 - a property of users
        return True


def _class_of(envelope: dict[str, Json]) -> type[Exception] | None:
    module, name = envelope.get("module") or builtins.__name__, envelope.get("type", "")
    found: Any = find_in_module(module, name) or (None if module in sys.modules else getattr(builtins, name, None))
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _rebuilt(kind: type[Exception], envelope: dict[str, Json], message: str) -> Exception | None:
    """Return an error with its `args` alone; None for a class that only its own constructor makes."""
    args: tuple[Any, ...] = tuple(envelope.get("args", [message]))
    if issubclass(kind, ExceptionGroup):
        args = (args[0] if args else message, [decode_error(each) for each in envelope.get("exceptions", [])])
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    try:
        if kind is base:  # some keep their values outside `args`, such as UnicodeEncodeError
            with contextlib.suppress(TypeError, ValueError):
                return kind(*args)
        error = base.__new__(kind, *(args if issubclass(kind, ExceptionGroup) else ()))
    except (TypeError, ValueError):
        return None
    _set_field(error, "args", args)
    return error


def _saying(error: Exception, message: str) -> Exception:
    """Return an error of a subclass that looks like its class and has this text."""
    kind = type(error)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__str__": lambda _: message}
    try:
        told = type(kind.__name__, (_Quiet, kind), names)
        object.__setattr__(error, "__class__", told)
    except TypeError:  # slots, a class that has no subclasses, or one of Python's own
        return _copied(error, kind, names, message)
    return error


def _copied(error: Exception, kind: type[Exception], names: dict[str, Any], message: str) -> Exception:
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    group = (message, list(error.exceptions)) if isinstance(error, ExceptionGroup) else ()
    try:
        copied = base.__new__(type(kind.__name__, (_Quiet, kind), names), *group)
    except (TypeError, ValueError):
        return RunFailedError(f"{kind.__qualname__}: {message}")
    for name, value in {
        "args": error.args,
        _FRAMES: _frames_of(error),
        "__cause__": error.__cause__,
        **_fields_of(error),
    }.items():
        _set_field(copied, name, value)
    return copied


class _Quiet:
    """Does not tell a class of its new subclass."""

    __slots__ = ()

    def __init_subclass__(cls, **named: Any) -> None:
        return


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


def _set_field(error: Exception, name: str, value: Json) -> None:
    with contextlib.suppress(Exception):  # a read-only property: it is computed from other fields
        object.__setattr__(error, name, value)


if list(inspect.signature(dbos_serialization.DefaultSerializer.deserialize).parameters) != ["cls", "serialized_data"]:
    raise ImportError("DBOS reads pickles by another function: this version of timestep works with dbos>=3.4,<3.5")
