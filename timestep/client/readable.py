"""Stored values as people read them: what a tool returned, a context, without the marks of their types."""

from __future__ import annotations

from typing import Any, cast

Json = Any
_MAPPINGS = ("builtins:dict", "collections:OrderedDict", "collections:defaultdict", "collections:Counter")


def readable(data: Json) -> Json:
    """Return a stored value as plain JSON: a model as its fields, a date as its text, a set as a list."""
    if isinstance(data, list):
        return [readable(part) for part in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    node = cast("dict[str, Any]", data)
    name = node.get("$type")
    if not isinstance(name, str):
        return {key: readable(part) for key, part in node.items()}
    if "fields" in node:
        return {key: readable(part) for key, part in {**node["fields"], **node.get("extra", {})}.items()}
    if "items" in node and name in _MAPPINGS:
        return {_key(key): readable(part) for key, part in node["items"]}
    part = next((node[key] for key in ("items", "base", "name", "value") if key in node), node)
    return part if part is node else readable(part)


def _key(key: Json) -> str:
    found = readable(key)
    return found if isinstance(found, str) else str(found)
