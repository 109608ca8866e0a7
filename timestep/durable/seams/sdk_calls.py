"""Tool calls of the SDK, each an object of one of its many classes or the JSON of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def field_of(call: Any, name: str) -> Any:
    """Return a field of a call; None when the call does not have it."""
    return call.get(name) if isinstance(call, Mapping) else getattr(call, name, None)


def call_id_of(call: Any) -> str:
    """Return the id by which a call is known, or the empty text."""
    return str(field_of(call, "call_id") or field_of(call, "id") or "")
