"""What the journal keeps of a value, and the value again.

* plain JSON: itself;
* `{"$type": "<name>", "value": <JSON>}`: a value of a type registered with `register_serializer`;
* `{"$type": "dict", "value": {...}}`: a plain dict that has the key `$type` itself;
* `{"$type": "structure", "value": <tree>}`: any other value, see `structure.py`. A version of Timestep that does not
  know the form refuses it.

Older records have two more forms: `{"$type": "list", "value": [...]}` and `{"$type": "<module>.<model>", "value":
...}`.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import BaseModel

from timestep.client.class_names import find_in_module
from timestep.durable.values.registered_types import serializer_named, serializer_of
from timestep.durable.values.structure import PLAIN, TYPE_MARK, NotKept, UnknownType, from_tree, to_tree
from timestep.errors import InvalidInputError, JournalFormatError
from timestep.store.json_text import dump_json

Json = Any
STRUCTURE = "structure"


def keep(value: Any, *, name: str) -> Json:
    """Return a value as JSON of which `restore` makes an equal one.

    Args:
        name: What the value is called in the message, such as `result`.

    Raises:
        NotKept: it would not come back as it is; the message names the part of it, and says why.
    """
    if type(value) in PLAIN:
        return value
    if (entry := serializer_of(value)) is not None:
        try:
            data = entry.dump(value)
            dump_json(data)
        except Exception as error:
            raise NotKept(f"the serializer of {entry.name!r} failed: {error}") from error
        return {TYPE_MARK: entry.name, "value": data}
    if is_plain(value):
        return {TYPE_MARK: "dict", "value": value} if isinstance(value, dict) and TYPE_MARK in value else value
    return structure_of(value, name=name)


def structure_of(value: Any, *, name: str) -> Json:
    """Return a value as a tree with its mark, in any case.

    Raises:
        NotKept: it would not come back as it is.
    """
    try:
        tree = to_tree(value, ((), name))
        text = dump_json(tree)
        again = to_tree(from_tree(json.loads(text)), ((), name))
        is_same = dump_json(again) == text or _without_registered(again) == _without_registered(tree)
    except NotKept:
        raise
    except RecursionError:
        raise NotKept(f"{name} is nested too deeply, or holds itself") from None
    except Exception as error:
        raise NotKept(f"{name} does not come back from JSON: {type(error).__name__}: {error}") from error
    if not is_same:
        raise NotKept(f"{name} does not come back from JSON as it is")
    return {TYPE_MARK: STRUCTURE, "value": tree}


def restore(data: Json) -> Any:
    """Return the value of its JSON.

    Raises:
        JournalFormatError: this process does not know the value's type, or its class has changed.
    """
    if not isinstance(data, dict) or TYPE_MARK not in data:
        return data
    fields = cast("dict[str, Any]", data)
    name, value = cast("str", fields[TYPE_MARK]), fields["value"]
    if (entry := serializer_named(name)) is not None:
        return entry.load(value)
    if name == "dict":
        return value
    if name == "list":
        return [restore(item) for item in value]
    if name == STRUCTURE:
        return _from_structure(value)
    module_name, _, class_name = name.rpartition(".")
    kind = find_in_module(module_name, class_name)
    if kind is not None and issubclass(kind, BaseModel):
        return kind.model_validate(value)
    raise _unknown(name)


def is_structure(data: Json) -> bool:
    """Whether JSON is that of a tree with its mark."""
    if not isinstance(data, dict):
        return False
    fields = cast("dict[str, Any]", data)
    return fields.keys() == {TYPE_MARK, "value"} and fields[TYPE_MARK] == STRUCTURE


def is_same(one: Any, other: Any) -> bool:
    """Whether two values have the same tree; False when one has none."""
    try:
        return dump_json(to_tree(one, ((), ""))) == dump_json(to_tree(other, ((), "")))
    except Exception:  # noqa: BLE001 - whatever a user's class raises, it has no tree
        return False


def is_plain(value: Any) -> bool:
    """Whether a value is JSON exactly: no type of it is another one after JSON."""
    try:
        dump_json(value)  # it holds no circle, so the loop below ends
    except InvalidInputError:
        return False
    waiting: list[Any] = [value]
    while waiting:
        part = waiting.pop()
        kind = type(part)
        if kind is list:
            waiting.extend(part)
        elif kind is dict:
            if not all(type(key) is str for key in part):
                return False
            waiting.extend(part.values())
        elif kind not in (*PLAIN, int, float):
            return False
    return True


def _from_structure(tree: Json) -> Any:
    try:
        return from_tree(tree)
    except UnknownType as error:
        raise _unknown(str(error)) from None
    except JournalFormatError:
        raise
    except Exception as error:
        raise JournalFormatError(
            f"A recorded value cannot be read by the code of this process: {type(error).__name__}: {error}",
            hint="Its class has changed since. Bring back what is missing, then `timestep runs resume ID`.",
        ) from error


def _unknown(name: str) -> JournalFormatError:
    return JournalFormatError(
        f"A recorded tool result has the type {name!r}, which this process does not know.",
        hint="Import the module that defines it, or call `register_serializer` for it, before the executor starts.",
    )


def _without_registered(tree: Json) -> Json:
    """Return a tree without what serializers of the caller's own wrote: that it comes back is their word."""
    if isinstance(tree, list):
        return [_without_registered(part) for part in cast("list[Any]", tree)]
    if not isinstance(tree, dict):
        return tree
    node = cast("dict[str, Any]", tree)
    if serializer_named(node.get(TYPE_MARK, "")) is not None:
        return {TYPE_MARK: node[TYPE_MARK]}
    return {key: _without_registered(part) for key, part in node.items()}
