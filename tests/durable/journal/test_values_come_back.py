"""Values come back from the journal as they were, whatever their types say of them."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from zoo import VALUES, ZOO, describe

from timestep.client.serializer import JournalSerializer
from timestep.durable.journal.values import decode_value, encode_value

EXAMPLES = int(os.environ.get("TIMESTEP_TEST_EXAMPLES", "100"))


def read_again(data: Any) -> Any:
    serializer = JournalSerializer()
    return serializer.deserialize(serializer.serialize({"ok": data}))["ok"]


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
