"""What a tool changes in the run's context, recorded with its step.

A replayed tool body does not run, so its changes would be lost. They are recorded by top-level key, of a dataclass or a
model by attribute: which were set, to what value, and which were removed. On a replay they are made again. Of parallel
calls that changed the same part the last one to finish counts: it has seen the changes of the others. A value that
would not come back is taken out of the context again: the run goes on with the same context that a replay has.

`{"set": {...}, "removed": [...]}` holds plain JSON of a dict; `{"values": [[key, value], ...], "removed": [...]}` holds
keys and values as `values/keeping.py` writes them. In older records `set` of a dataclass or a model is the JSON of
pydantic.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter

from timestep.durable.states.context import is_typed
from timestep.durable.values.keeping import is_plain, keep, restore
from timestep.durable.values.registered_types import serializer_of
from timestep.durable.values.structure import NotKept, from_tree, is_object, object_parts, to_tree
from timestep.store.json_text import dump_json

Json = Any
Fingerprint = dict[Any, str | None]
"""The text of each part of a context; None when the part has no form."""

WHOLE = "$whole"
"""The only part of a context that is changed in one piece: a list, or an object with a serializer of its own."""

Moment = tuple[int, int, float]
"""When a call finished: the turn of the run, the attempt, and the time. Times of one attempt alone are of one clock."""

Newest = dict[tuple[int, Any], Moment]
"""When the last call finished that changed a part of a context, by the identity of the context and the part."""

READS = 5
"""How often a part of a context is read that changes meanwhile."""

T = TypeVar("T")

FIELDS_SET = "$fields_set"
"""A part of the context of a model: the names of the fields that were set."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is recorded, None when nothing changed, and the parts that were not kept, with the reason."""

    recorded: Json = None
    lost: dict[Any, str] = field(default_factory=dict)


def fingerprint(context: object) -> Fingerprint:
    """Return the text of each part of a context."""
    return {key: _text(value) for key, value in _steady(_parts, context).items()}


def take_changes(before: Fingerprint, context: object) -> Changes:
    """Return what has changed since an earlier fingerprint, and undo in the context what would not come back."""
    now, changed, lost = _steady(_parts, context), {}, {}
    for key, value in now.items():
        text = _text(value)
        if key in before and before[key] == text:
            continue
        try:
            changed[key] = _steady(functools.partial(keep, name=f"context.{key}" if key != WHOLE else "context"), value)
        except NotKept as error:
            lost[key] = str(error)
    for key in lost:
        _undo(context, key, before)
    removed = [key for key in before if key not in now]
    if not changed and not removed:
        return Changes(lost=lost)
    plain = {key: now[key] for key in changed}
    if isinstance(context, dict) and is_plain(plain) and all(type(key) is str for key in removed):
        return Changes(recorded={"set": plain, "removed": removed}, lost=lost)
    values = [[keep(key, name="a key of the context"), value] for key, value in changed.items()]
    return Changes(recorded={"values": values, "removed": [keep(key, name="a key") for key in removed]}, lost=lost)


def apply_changes(context: Any, changes: Json, *, at: Moment, newest: Newest) -> None:
    """Make the recorded changes of a call again on a replay, except those of parts that a later one has changed."""
    if not changes:
        return
    due = _due(context, changes, at, newest)
    if "values" in changes:
        for stored, value in changes["values"]:
            if (key := restore(stored)) in due:
                _set(context, key, restore(value))
    elif isinstance(context, MutableMapping):
        cast("MutableMapping[str, Any]", context).update(
            {key: changes["set"][key] for key in changes["set"] if key in due}
        )
    elif is_typed(context):
        current = TypeAdapter(type(context)).dump_python(context, mode="json")
        values = TypeAdapter(type(context)).validate_python({**current, **changes["set"]})
        for key in changes["set"]:
            setattr(context, key, getattr(values, key))
    for stored in changes["removed"]:
        if (key := restore(stored)) in due:
            _remove(context, key)


def note_changes(context: Any, changes: Json, *, at: Moment, newest: Newest) -> None:
    """Note when the parts that a call has changed were changed."""
    if changes:
        _due(context, changes, at, newest)


def _due(context: Any, changes: Json, at: Moment, newest: Newest) -> set[Any]:
    """Return the parts of recorded changes that no call that finished later has changed, and note the time."""
    keys = [restore(key) for key in changes["removed"]]
    keys += [restore(key) for key, _ in changes["values"]] if "values" in changes else list(changes["set"])
    due: set[Any] = set()
    for key in keys:
        last = newest.get((id(context), key), at)
        if last[:2] != at[:2] or last <= at:
            due.add(key)
            newest[id(context), key] = at
    return due


def _steady(function: Callable[[Any], T], value: Any) -> T:
    """Read a part of a context that the thread of another tool may change meanwhile: Python then says so."""
    for _ in range(READS):
        try:
            return function(value)
        except RecursionError:
            raise
        except RuntimeError:
            continue
        except NotKept as error:
            if not isinstance(error.__cause__, RuntimeError):
                raise
    return function(copy.deepcopy(value))


def _parts(context: Any) -> dict[Any, Any]:
    if isinstance(context, MutableMapping):
        return dict(cast("MutableMapping[Any, Any]", context))
    if isinstance(context, list) or serializer_of(context) is not None:
        return {WHOLE: context}
    if is_object(context):
        parts = {key: value for group in object_parts(context).values() for key, value in group.items()}
        return parts | ({FIELDS_SET: sorted(context.model_fields_set)} if isinstance(context, BaseModel) else {})
    return {}


def _text(value: Any) -> str | None:
    try:
        if _steady(is_plain, value):
            return dump_json([value])
        return dump_json({"tree": _steady(lambda part: to_tree(part, ((), "")), value)})
    except Exception:  # noqa: BLE001 - whatever a user's class raises, the value has no form
        return None


def _undo(context: Any, key: Any, before: Fingerprint) -> None:
    text = before.get(key)
    if text is not None:
        stored = json.loads(text)
        _set(context, key, stored[0] if isinstance(stored, list) else from_tree(stored["tree"]))
    elif key not in before:
        _remove(context, key)


def _set(context: Any, key: Any, value: Any) -> None:
    """Set a part of a context as a tool did, without the validation of its class."""
    if isinstance(context, MutableMapping):
        context[key] = value
    elif isinstance(context, list):
        context[:] = value
    elif key == WHOLE:
        vars(context).clear()
        vars(context).update(vars(value))
    elif not isinstance(context, BaseModel):
        object.__setattr__(context, key, value)
    elif key == FIELDS_SET:
        object.__setattr__(context, "__pydantic_fields_set__", set(value))
    elif key in type(context).model_fields:
        vars(context)[key] = value
    elif key in context.__private_attributes__:
        cast("dict[str, Any]", context.__pydantic_private__)[key] = value
    else:
        cast("dict[str, Any]", context.__pydantic_extra__)[key] = value


def _remove(context: Any, key: Any) -> None:
    if isinstance(context, MutableMapping):
        cast("MutableMapping[Any, Any]", context).pop(key, None)
    elif isinstance(context, BaseModel):
        for group in (vars(context), context.__pydantic_extra__ or {}, context.__pydantic_private__ or {}):
            group.pop(key, None)
    elif hasattr(context, key):
        object.__delattr__(context, key)
