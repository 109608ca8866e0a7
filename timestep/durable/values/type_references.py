"""Names of types as JSON, generic ones with their arguments: `"app:Order"`, `{"of": "app:Page", "args": ["int"]}`."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union, cast

from pydantic import BaseModel

from timestep.client.class_names import find_class, name_of_class

Json = Any

_UNION = "typing:Union"
_LITERAL = "typing:Literal"
_GENERIC = (list, dict, tuple, set, frozenset)


def reference_of(kind: Any) -> Json | None:  # noqa: PLR0911 - one for each kind
    """Return the reference of a type; None when another process could not find the type by it."""
    if kind is Any:
        return "typing:Any"
    if kind is None or kind is type(None):
        return "None"
    if isinstance(kind, type) and issubclass(kind, BaseModel) and is_generic_model(kind):
        generic = kind.__pydantic_generic_metadata__
        return _generic(name_of_class(cast("type", generic["origin"])), generic["args"], reference_of)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _generic(_UNION, arguments, reference_of)
    if origin is Literal:
        is_plain = all(argument is None or type(argument) in (str, int, bool) for argument in arguments)
        return {"of": _LITERAL, "args": list(arguments)} if is_plain else None
    if origin in _GENERIC:
        return _generic(name_of_class(cast("type", origin)), arguments, reference_of)
    if isinstance(kind, type):
        name = name_of_class(kind)
        return name if find_class(name) is kind else None
    return "..." if kind is ... else None


def is_generic_model(kind: type[BaseModel]) -> bool:
    """Whether a model is a generic one with its arguments, such as `Page[int]`."""
    return getattr(kind, "__pydantic_generic_metadata__", {}).get("origin") is not None


def type_of(reference: Json) -> Any:
    """Return the type of a reference; None when this process has none of that name."""
    if isinstance(reference, str):
        return {"typing:Any": Any, "None": None, "...": ...}.get(reference) or find_class(reference)
    fields = cast("dict[str, Any]", reference)
    if fields["of"] == _LITERAL:
        return Literal[tuple(fields["args"])]  # pyright: ignore[reportInvalidTypeForm] - known at run time alone
    arguments = tuple(type_of(argument) for argument in fields["args"])
    if fields["of"] == _UNION:
        return Union[arguments]  # noqa: UP007 - known at run time alone
    origin = find_class(fields["of"])
    if origin in _GENERIC or (origin is not None and issubclass(origin, BaseModel)):
        return cast("Any", origin)[arguments if len(arguments) != 1 else arguments[0]]
    return None


def _generic(name: str, arguments: tuple[Any, ...], each: Callable[[Any], Json | None]) -> Json | None:
    references = [each(argument) for argument in arguments]
    return {"of": name, "args": references} if None not in references else None
