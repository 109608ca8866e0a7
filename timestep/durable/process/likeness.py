"""Whether two pieces of code are the same one, made twice: a provider for each request, a lambda for each call.

Objects are alike when they are of one class and were made with the same state; functions, when they have the same code
and close over the same values. The state is noted when the code is registered: what it opens and caches later is no
difference. What cannot be looked into, such as a lock, is like any other of its class.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

MOST_PARTS = 2000
"""How many values are looked at; those beyond are told apart by their class and by `==` alone."""

_PLAIN = (str, bytes, bytearray, int, float, complex, type(None), types.CodeType, types.ModuleType)
_MADE_OF: dict[type, tuple[str, ...]] = {
    types.FunctionType: ("__code__", "__defaults__", "__kwdefaults__", "__closure__"),
    types.CellType: ("cell_contents",),
    types.MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset"),
}
"""Attributes that make code what it is."""

_NO_STATE = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__doc__",
    "__firstlineno__",
    "__static_attributes__",
    "_abc_impl",
}


@dataclass(kw_only=True, eq=False)
class Likeness:
    """A value as it was at one moment, with its parts by name; None where there is nothing to look into."""

    value: Any
    parts: dict[Any, Likeness] | None = None

    @staticmethod
    def of(value: Any) -> Likeness:
        """Look at a value, with all that it holds."""
        seen: dict[int, Likeness] = {}
        first = seen[id(value)] = Likeness(value=value)
        waiting = [first]
        while waiting:
            each = waiting.pop(0)
            if len(seen) > MOST_PARTS or (parts := _find_parts(each.value)) is None:
                continue
            each.parts = {}
            for name, part in parts.items():
                if id(part) not in seen:
                    seen[id(part)] = Likeness(value=part)
                    waiting.append(seen[id(part)])
                each.parts[name] = seen[id(part)]
        return first

    def is_like(self, other: Likeness) -> bool:
        """Whether another value is the same, or was made the same way."""
        seen: set[tuple[int, int]] = set()
        waiting = [(self, other)]
        while waiting:
            one, two = waiting.pop()
            if one.value is two.value or (id(one), id(two)) in seen:
                continue
            seen.add((id(one), id(two)))
            if not _is_of_one_class(one.value, two.value):
                return False
            if _is_equal(one.value, two.value):
                continue
            if one.parts is None or two.parts is None:
                if _has_own_equality(one.value):
                    return False
                continue
            if one.parts.keys() != two.parts.keys():
                return False
            waiting += [(part, two.parts[name]) for name, part in one.parts.items()]
        return True


def _find_parts(value: Any) -> dict[Any, Any] | None:
    try:
        return _parts_of(value)
    except Exception:  # noqa: BLE001 - a user's own attributes
        return None


def _parts_of(value: Any) -> dict[Any, Any] | None:
    """Return what makes a value what it is, by names; None when only `==` can tell."""
    for kind, names in _MADE_OF.items():
        if isinstance(value, kind):
            return {name: getattr(value, name, None) for name in names}
    if isinstance(value, (list, tuple)):
        return dict(enumerate(cast("Sequence[Any]", value)))
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value)
    if isinstance(value, type):
        own = {name: part for name, part in vars(value).items() if name not in _NO_STATE}
        return own if _is_local(value) else None
    return None if isinstance(value, _PLAIN) else _parts_of_object(value)


def _parts_of_object(value: Any) -> dict[Any, Any] | None:
    kind = type(value)
    parts = {**getattr(value, "__dict__", {})}
    for each in kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in _NO_STATE and hasattr(value, name):
                parts[name] = getattr(value, name)
    if _is_local(kind):
        parts["__class__"] = kind
    return parts or (None if _has_own_equality(value) else {})


def _is_local(kind: type) -> bool:
    """Whether a class is made anew by each call of a function."""
    return "<locals>" in kind.__qualname__


def _is_of_one_class(one: Any, two: Any) -> bool:
    kind, other = type(one), type(two)
    return kind is other or (
        _is_local(kind) and (kind.__module__, kind.__qualname__) == (other.__module__, other.__qualname__)
    )


def _is_equal(one: Any, two: Any) -> bool:
    try:
        return bool(one == two)
    except Exception:  # noqa: BLE001 - a user's own comparison
        return False


def _has_own_equality(value: Any) -> bool:
    return type(value).__eq__ is not object.__eq__
