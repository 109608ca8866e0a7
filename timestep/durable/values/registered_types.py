"""Types with a form of their own in the journal: those of `register_serializer`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = Any


@dataclass(frozen=True, kw_only=True)
class TypeSerializer:
    """How values of a type are written and read; `name` is stored beside them."""

    name: str
    kind: type
    dump: Callable[[Any], Json]
    load: Callable[[Json], Any]


_serializers: dict[str, TypeSerializer] = {}


def register_serializer(
    kind: type, *, dump: Callable[[Any], Json], load: Callable[[Json], Any], name: str | None = None
) -> None:
    """Let tools return values of `kind`: `dump` makes JSON of one, `load` makes one of that JSON.

    Register at import time, in every process that may execute the agent. `name` is stored beside the value and
    defaults to the qualified class name; keep it when the class moves. Registering a type again replaces its entry.
    It goes before the form that a type has by itself.
    """
    name = name or f"{kind.__module__}.{kind.__qualname__}"
    _serializers[name] = TypeSerializer(name=name, kind=kind, dump=dump, load=load)


def serializer_of(value: object) -> TypeSerializer | None:
    """Return the serializer of a value's type or of one that it inherits from."""
    return next((entry for entry in _serializers.values() if isinstance(value, entry.kind)), None)


def serializer_of_type(kind: type) -> TypeSerializer | None:
    """Return the serializer of a type or of one that it inherits from."""
    return next((entry for entry in _serializers.values() if issubclass(kind, entry.kind)), None)


def serializer_named(name: str) -> TypeSerializer | None:
    """Return the serializer of a stored name."""
    return _serializers.get(name)
