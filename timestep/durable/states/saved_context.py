"""The run context of a state that a program saves: what JSON cannot keep is refused, with the name of the field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter

from timestep.durable.states.context import is_typed, load_context
from timestep.errors import InvalidInputError

ContextSerializer = Callable[[Any], Mapping[str, Any]]
ContextDeserializer = Callable[[Mapping[str, Any]], Any]

_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_HINT = "Give RunStateStore a context_serializer and a context_deserializer, or keep it out of the context."


def dump_saved_context(context: Any) -> Mapping[str, Any]:
    """Return a context that is a dataclass or a pydantic model as JSON, whole.

    Raises:
        InvalidInputError: it is of another kind, or a field would not come back as it is; the message names it.
    """
    kind = type(context)
    if not is_typed(context):
        raise InvalidInputError(
            f"The run's context is of type {kind.__qualname__}, of which nothing would be stored.", hint=_HINT
        )
    try:
        data = TypeAdapter(kind).dump_python(context, mode="json")
        restored = load_context(data, kind)
    except Exception as error:
        where = _where_no_json(context, "context")
        raise InvalidInputError(
            f"{where} of the context, a {kind.__qualname__}, cannot be stored as JSON: {error}", hint=_HINT
        ) from error
    for name in _fields(context):
        if getattr(restored, name, None) != getattr(context, name):
            raise InvalidInputError(
                f"context.{name}, of a {kind.__qualname__}, would be lost: it does not come back from JSON.", hint=_HINT
            )
    return data


def check_saved_context(data: Any, path: str = "context") -> None:
    """Refuse a context of plain data of which JSON would keep something else; tuples are kept as lists.

    Raises:
        InvalidInputError: the message names the field, as `context.cart.items[2]`.
    """
    if data is None or isinstance(data, (str, bool, int)):
        return
    if isinstance(data, float):
        if not math.isfinite(data):
            raise InvalidInputError(f"{path} is {data}, which JSON does not know.", hint=_HINT)
    elif isinstance(data, Mapping):
        for key, value in cast("Mapping[Any, Any]", data).items():
            if not isinstance(key, str):
                raise InvalidInputError(f"{path} has the key {key!r}; keys of JSON are text.", hint=_HINT)
            check_saved_context(value, f"{path}.{key}")
    elif isinstance(data, (list, tuple)):
        for number, value in enumerate(cast("Sequence[Any]", data)):
            check_saved_context(value, f"{path}[{number}]")
    else:
        raise InvalidInputError(f"{path} is a {type(data).__qualname__}, which JSON cannot keep.", hint=_HINT)


def _where_no_json(value: Any, path: str) -> str:
    """Return the path of the innermost part of a value that has no form in JSON."""
    for name, part in _parts(value):
        try:
            _ANY.dump_python(part, mode="json")
        except Exception:  # noqa: BLE001 - whatever it is, this part is the one
            return _where_no_json(part, f"{path}{name}")
    return path


def _parts(value: Any) -> list[tuple[str, Any]]:
    if is_typed(value):
        return [(f".{name}", getattr(value, name)) for name in _fields(value)]
    if isinstance(value, Mapping):
        return [(f".{key}", part) for key, part in cast("Mapping[Any, Any]", value).items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{number}]", part) for number, part in enumerate(cast("Sequence[Any]", value))]
    return []


def _fields(context: Any) -> list[str]:
    if isinstance(context, BaseModel):
        return [*type(context).model_fields, *(context.__pydantic_private__ or {})]
    return [field.name for field in dataclasses.fields(context)]
