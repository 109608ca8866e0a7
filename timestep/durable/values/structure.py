"""Any value as a tree of JSON that says what it is, and back, without its constructor and its validators.

What is plain JSON is itself: text, whole and finite numbers, booleans, None, lists, and dicts with text keys. Anything
else is a node, `{"$type": "<module>:<class>", ...}`, of which the parts are trees again:

* a model of pydantic, a dataclass: `fields` by the names of their attributes; of a model also `args` (of a generic
  one), `set` (the names of `model_fields_set`, where these are not all), `extra` and `private`;
* an enum: `name`; a tuple, a set or another container: `items`; a subclass of such a type: `base` and `private`;
* dates, decimals, UUIDs, paths, bytes: `value`, mostly a text;
* a type of `register_serializer`: `value`, as its `dump` made it.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import math
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any, cast

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic.networks import AnyUrl
from pydantic_core import PydanticUndefined

from timestep.client.class_names import find_class, name_of_class
from timestep.durable.values.registered_types import serializer_named, serializer_of
from timestep.durable.values.scalars import MultiHostUrl, is_scalar_name, scalar_node, scalar_of, url_of
from timestep.durable.values.type_references import reference_of, type_of
from timestep.store.json_text import dump_json

Json = Any
Place = tuple[Any, str]
"""Where a value is: the place of what holds it, or the text that names the whole, and its own part of the path."""

TYPE_MARK = "$type"
PLAIN = (str, bool, type(None))
LONGEST_INT_BITS = 10_000
"""Python refuses to read a number with more than 4,300 digits."""

CONTAINERS: dict[type, str] = {
    tuple: "builtins:tuple",
    set: "builtins:set",
    frozenset: "builtins:frozenset",
    collections.deque: "collections:deque",
    collections.OrderedDict: "collections:OrderedDict",
    collections.defaultdict: "collections:defaultdict",
    collections.Counter: "collections:Counter",
}
UNORDERED = ("builtins:set", "builtins:frozenset")
BASES: tuple[type, ...] = (*CONTAINERS, dict, list, str, int, float, bytes)
"""Types of which a subclass is kept as a value of the type and its attributes. The first that fits counts."""

_EXACT: dict[type, Callable[[Any], Any]] = {
    list: lambda value: [*list.__iter__(value)],
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
}

_found: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
"""Names of classes by which they were found."""


class NotKept(Exception):
    """A value would not come back as it is; the message says which part of it, and why."""


class UnknownType(Exception):
    """A stored value is of a type that this process does not know; the message is its name."""


def to_tree(value: Any, at: Place) -> Json:  # noqa: PLR0911 - one for each kind
    """Return a value as a tree.

    Raises:
        NotKept: a part of it has no form.
        RecursionError: it is nested too deeply, or holds itself.
    """
    kind = type(value)
    if kind in PLAIN or (kind is int and value.bit_length() <= LONGEST_INT_BITS):
        return value
    if kind is float and math.isfinite(value):
        return value
    if (entry := serializer_of(value)) is not None:
        return {TYPE_MARK: entry.name, "value": entry.dump(value)}
    if kind is list:
        return _items(value, at)
    if kind is dict:
        mapping = cast("dict[Any, Any]", value)
        if all(type(key) is str for key in mapping) and TYPE_MARK not in mapping:
            return {key: to_tree(part, (at, f".{key}")) for key, part in mapping.items()}
        return {TYPE_MARK: "builtins:dict", "items": _pairs(mapping, at)}
    if isinstance(value, (SecretStr, SecretBytes)):
        raise NotKept(f"{path_of(at)} is a {kind.__qualname__}, whose secret is not written into the database")
    if (node := scalar_node(value)) is not None:
        return node
    if kind in CONTAINERS:
        return {TYPE_MARK: CONTAINERS[kind], **_contents(kind, value, at)}
    if isinstance(value, enum.Enum):
        return _enum_node(value, at)
    if is_object(value):
        return object_node(value, at)
    base = _base_of(kind)
    if base is None:
        raise NotKept(f"{path_of(at)} is {_article(kind)}, which has no form in JSON")
    node = {TYPE_MARK: _findable_name(kind, at), "base": _base_value(base, value, at)}
    attributes = {name: to_tree(part, (at, f".{name}")) for name, part in attributes_of(value).items()}
    return node | ({"private": attributes} if attributes else {})


def from_tree(tree: Json) -> Any:  # noqa: PLR0911 - one for each kind
    """Return the value of a tree.

    Raises:
        UnknownType: a type of it is not loaded in this process.
    """
    if isinstance(tree, list):
        return [from_tree(part) for part in cast("list[Any]", tree)]
    if not isinstance(tree, dict):
        return tree
    node = cast("dict[str, Any]", tree)
    name = node.get(TYPE_MARK)
    if name is None:
        return {key: from_tree(part) for key, part in node.items()}
    if (entry := serializer_named(name)) is not None:
        return entry.load(node["value"])
    if is_scalar_name(name):
        return scalar_of(node)
    if "items" in node:
        return _container(name, node)
    kind = type_of({"of": name, "args": node["args"]} if "args" in node else name)
    if not isinstance(kind, type):
        raise UnknownType(name)
    if issubclass(kind, enum.Enum):
        return kind.__members__[node["name"]] if "name" in node else kind(from_tree(node["value"]))
    if "fields" in node:
        return _object(kind, node)
    if issubclass(kind, (AnyUrl, MultiHostUrl)):
        return url_of(node)
    if "base" in node and (base := _base_of(kind)) is not None:
        return _of_base(base, kind, node)
    raise UnknownType(name)


def is_object(value: Any) -> bool:
    """Whether a value is a model of pydantic or an instance of a dataclass."""
    return isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def object_parts(value: Any) -> dict[str, dict[str, Any]]:
    """Return the attributes of a model or a dataclass: `fields`, `private`, and `extra` of a model."""
    kind = cast("type[Any]", type(value))
    if isinstance(value, BaseModel):
        private = value.__pydantic_private__ or {}
        return {
            "fields": {name: part for name, part in vars(value).items() if name in kind.model_fields},
            "extra": value.__pydantic_extra__ or {},
            "private": {name: private[name] for name in kind.__private_attributes__ if name in private},
        }
    names = [field.name for field in dataclasses.fields(value)]
    return {
        "fields": {name: getattr(value, name) for name in names if hasattr(value, name)},
        "private": {name: part for name, part in attributes_of(value).items() if name not in names},
    }


def object_node(value: Any, at: Place, *, without: Collection[str] = ()) -> dict[str, Json]:
    """Return the node of a model or a dataclass, `without` some of its attributes."""
    kind = cast("type[Any]", type(value))
    node: dict[str, Json] = {TYPE_MARK: _findable_name(kind, at)}
    if isinstance(value, BaseModel) and isinstance(reference := reference_of(kind), dict):
        node = {TYPE_MARK: reference["of"], "args": reference["args"]}
    for group, attributes in object_parts(value).items():
        kept = {name: part for name, part in attributes.items() if name not in without}
        if kept or group == "fields":
            node[group] = {name: to_tree(part, (at, f".{name}")) for name, part in kept.items()}
    if isinstance(value, BaseModel) and value.model_fields_set != set(node["fields"]) | set(node.get("extra", ())):
        node["set"] = sorted(value.model_fields_set)
    return node


def attributes_of(value: Any) -> dict[str, Any]:
    """Return what was set on an instance, without what its class computes on demand."""
    kind = cast("type[Any]", type(value))
    return {
        name: part
        for name, part in getattr(value, "__dict__", {}).items()
        if not name.startswith("__") and not isinstance(getattr(kind, name, None), functools.cached_property)
    }


def path_of(at: Place) -> str:
    """Return a place as a person writes it: `result.lines[2].price`."""
    parts: list[str] = []
    while at:
        before, part = at
        parts.insert(0, part)
        at = before
    return "".join(parts)


def _items(values: Iterable[Any], at: Place) -> list[Json]:
    return [to_tree(part, (at, f"[{number}]")) for number, part in enumerate(values)]


def _pairs(mapping: Any, at: Place) -> list[Json]:
    return [[to_tree(key, (at, f" key {key!r}")), to_tree(part, (at, f"[{key!r}]"))] for key, part in mapping.items()]


def _contents(kind: type, value: Any, at: Place) -> dict[str, Json]:
    if issubclass(kind, (set, frozenset)):
        return {"items": sorted((to_tree(part, (at, "{…}")) for part in value), key=dump_json)}
    if kind is collections.deque and value.maxlen is not None:
        return {"items": _items(value, at), "length": value.maxlen}
    if kind is collections.defaultdict and value.default_factory is not None:
        factory = reference_of(value.default_factory) if isinstance(value.default_factory, type) else None
        if factory is None:
            raise NotKept(f"{path_of(at)} has a default_factory that another process cannot find")
        return {"items": _pairs(value, at), "factory": factory}
    return {"items": _pairs(value, at) if issubclass(kind, dict) else _items(value, at)}


def _container(name: str, node: dict[str, Json]) -> Any:  # noqa: PLR0911 - one for each kind
    items = node["items"]
    match name:
        case "builtins:tuple":
            return tuple(from_tree(part) for part in items)
        case "builtins:set":
            return {from_tree(part) for part in items}
        case "builtins:frozenset":
            return frozenset(from_tree(part) for part in items)
        case "collections:deque":
            return collections.deque((from_tree(part) for part in items), node.get("length"))
        case "builtins:dict":
            return _dict_of(items)
        case "collections:OrderedDict":
            return collections.OrderedDict(_dict_of(items))
        case "collections:Counter":
            return collections.Counter(_dict_of(items))
        case "collections:defaultdict":
            return collections.defaultdict(type_of(node["factory"]) if "factory" in node else None, _dict_of(items))
        case _:
            raise UnknownType(name)


def _dict_of(pairs: Iterable[Any]) -> dict[Any, Any]:
    return {from_tree(key): from_tree(part) for key, part in pairs}


def _enum_node(value: enum.Enum, at: Place) -> dict[str, Json]:
    name = _findable_name(type(value), at)
    if value.name in type(value).__members__:  # a union of flags has no name of its own
        return {TYPE_MARK: name, "name": value.name}
    return {TYPE_MARK: name, "value": to_tree(value.value, at)}


def _base_of(kind: type) -> type | None:
    return next((base for base in BASES if issubclass(kind, base)), None)


def _base_value(base: type, value: Any, at: Place) -> Json:
    """Return an instance of a subclass of `base` as if it were one of `base`."""
    if base in CONTAINERS:
        return {TYPE_MARK: CONTAINERS[base], **_contents(base, value, at)}
    if base is dict:
        return {TYPE_MARK: "builtins:dict", "items": _pairs(value, at)}
    return to_tree(_EXACT[base](value), at)


def _of_base(base: type, kind: type[Any], node: dict[str, Json]) -> Any:
    content = from_tree(node["base"])
    if base in (tuple, frozenset, str, int, float, bytes):
        try:
            value = cast("Any", base).__new__(kind, content)
        except TypeError:  # a type of C code, such as numpy.float64, is made by its own constructor alone
            value = kind(content)
    else:
        value = cast("Any", base).__new__(kind)
        if base is collections.deque:
            collections.deque.__init__(value, content, content.maxlen)
        elif base is collections.defaultdict:
            collections.defaultdict.__init__(value, content.default_factory, content)
        elif base is list:
            list.extend(value, content)
        else:
            cast("Any", base if base in (set, collections.OrderedDict) else dict).update(value, content)
    for name, part in node.get("private", {}).items():
        object.__setattr__(value, name, from_tree(part))
    return value


def _object(kind: type[Any], node: dict[str, Json]) -> Any:
    fields = {name: from_tree(part) for name, part in node["fields"].items()}
    private = {name: from_tree(part) for name, part in node.get("private", {}).items()}
    if issubclass(kind, BaseModel):
        return _model(kind, node, fields, private)
    if not dataclasses.is_dataclass(kind):
        raise UnknownType(node[TYPE_MARK])
    value = object.__new__(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name, field in known.items():
        if name in fields:
            object.__setattr__(value, name, fields[name])
        elif field.default_factory is not dataclasses.MISSING:  # a field that the class has had since
            object.__setattr__(value, name, field.default_factory())
        elif field.default is not dataclasses.MISSING and not isinstance(field.default, FieldInfo):
            object.__setattr__(value, name, field.default)
    for name, part in private.items():
        object.__setattr__(value, name, part)
    return value


def _model(kind: type[BaseModel], node: dict[str, Json], fields: dict[str, Any], private: dict[str, Any]) -> BaseModel:
    extra = {name: from_tree(part) for name, part in node.get("extra", {}).items()}
    values = {name: fields[name] for name in kind.model_fields if name in fields}
    for name, field in kind.model_fields.items():
        if name not in values and not field.is_required():  # a field that the class has had since
            values[name] = field.get_default(call_default_factory=True, validated_data=values)
    for name, attribute in kind.__private_attributes__.items():
        if name not in private and (default := attribute.get_default()) is not PydanticUndefined:
            private[name] = default
    model = kind.__new__(kind)
    object.__setattr__(model, "__dict__", values)
    object.__setattr__(model, "__pydantic_fields_set__", set(node.get("set", [*fields, *extra])))
    object.__setattr__(model, "__pydantic_extra__", extra if kind.model_config.get("extra") == "allow" else None)
    object.__setattr__(model, "__pydantic_private__", private if kind.__private_attributes__ else None)
    return model


def _findable_name(kind: type, at: Place) -> str:
    name = _found.get(kind)
    if name is not None:
        return name
    name = name_of_class(kind)
    if isinstance(reference_of(kind), dict) or find_class(name) is kind:
        _found[kind] = name
        return name
    raise NotKept(f"{path_of(at)} is {_article(kind)}, a class that another process cannot find")


def _article(kind: type) -> str:
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
