"""Values come back from the journal as they were, whatever their types say of them."""

from __future__ import annotations

import collections
import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from zoo import VALUES, ZOO

from timestep.client.serializer import JournalSerializer
from timestep.durable.journal.values import decode_value, encode_value

EXAMPLES = int(os.environ.get("TIMESTEP_TEST_EXAMPLES", "100"))


def read_again(data: Any) -> Any:
    serializer = JournalSerializer()
    return serializer.deserialize(serializer.serialize({"ok": data}))["ok"]


def describe(value: Any) -> str:
    """Return all that there is in a value: types, attributes and parts, the order of sets apart."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value)}{sorted(describe(part) for part in value)}"
    if isinstance(value, dict):
        inner = ", ".join(f"{describe(key)}: {describe(part)}" for key, part in value.items())
        return f"{type(value)}{{{inner}}}"
    if isinstance(value, (list, tuple, collections.deque)):
        return f"{type(value)}[{', '.join(describe(part) for part in value)}] {getattr(value, 'name', '')}"
    parts: dict[str, Any] = {}
    if hasattr(type(value), "__dataclass_fields__") or hasattr(type(value), "model_fields"):
        names = (
            "__pydantic_extra__",
            "__pydantic_private__",
            "__pydantic_fields_set__",
            *getattr(value, "__slots__", ()),
        )
        parts = {
            name: getattr(value, name)
            for name in names
            if hasattr(value, name) and name not in ("__dict__", "__weakref__")
        }
        parts |= {name: part for name, part in getattr(value, "__dict__", {}).items() if not name.startswith("__")}
    if parts:
        return f"{type(value)}({', '.join(f'{name}={describe(part)}' for name, part in parts.items())})"
    return f"{type(value)} {value.bit_length() if isinstance(value, int) and value.bit_length() > 9999 else value!r}"


@pytest.mark.parametrize("value", ZOO, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    data = encode_value(value, what="a test")

    found = decode_value(read_again(data))

    assert describe(found) == describe(value)
    assert json.dumps(encode_value(found, what="a test")) == json.dumps(data)


@settings(max_examples=EXAMPLES)
@given(VALUES)
def test_any_value_comes_back_as_it_was(value: Any) -> None:
    assert describe(decode_value(read_again(encode_value(value, what="a test")))) == describe(value)
