"""What the annotation of a result says about whether it can come back from the journal."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, SecretBytes, SecretStr

from timestep.durable.values.registered_types import serializer_of_type
from timestep.durable.values.scalars import SCALARS
from timestep.durable.values.structure import BASES, PLAIN
from timestep.durable.values.type_references import is_generic_model

_ABSTRACT: tuple[Any, ...] = (
    collections.abc.Mapping,
    collections.abc.MutableMapping,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Set,
    collections.abc.MutableSet,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.Sized,
    collections.abc.Container,
    collections.abc.Hashable,
)
"""What values of many types are: the value shows whether it comes back."""

_NEVER: tuple[Any, ...] = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.Awaitable,
    collections.abc.Coroutine,
    collections.abc.Callable,
)


def return_type_of(function: Callable[..., Any]) -> Any:
    """Return the annotated type of a function's result; `Any` when there is none, or it cannot be told."""
    try:
        return typing.get_type_hints(function, include_extras=True).get("return", Any)
    except Exception:  # noqa: BLE001 - a name of the annotation is not there at run time
        return Any


def reason_not_kept(annotation: Any) -> str | None:
    """Return why no value of an annotated type would come back; None when one may."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return reason_not_kept(arguments[0])
    if origin is Literal or annotation in (Any, None, ..., object) or isinstance(annotation, (TypeVar, str)):
        return None
    if origin in (Union, types.UnionType):
        return next((reason for each in arguments if (reason := reason_not_kept(each))), None)
    kind = origin if origin is not None else annotation
    if not isinstance(kind, type):
        return None
    return _reason_of_class(kind) or next((reason for each in arguments if (reason := reason_not_kept(each))), None)


def _reason_of_class(kind: type) -> str | None:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if serializer_of_type(kind) is not None or kind in _ABSTRACT or typing.is_typeddict(kind):
        return None
    if issubclass(kind, (SecretStr, SecretBytes)):
        return f"the secret of a {kind.__qualname__} is not written into the database"
    if kind in (*PLAIN, int, float, dict, list, *BASES) or issubclass(kind, SCALARS):
        return None
    if issubclass(kind, (BaseModel, enum.Enum, *BASES)) or dataclasses.is_dataclass(kind):
        is_generic = issubclass(kind, BaseModel) and is_generic_model(kind)
        is_there = is_generic or "<locals>" not in kind.__qualname__
        return None if is_there else f"{name} is a class that another process cannot find"
    is_open = inspect.isabstract(kind) or getattr(kind, "_is_protocol", False)
    is_open = is_open or any(_reason_of_class(each) is None for each in type.__subclasses__(kind))
    if is_open and kind not in _NEVER:
        return None
    return f"{name} is neither a dataclass nor a pydantic model, and has no serializer"
