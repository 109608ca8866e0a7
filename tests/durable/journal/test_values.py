"""Values and errors on their way through the journal, without an engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from timestep import register_serializer
from timestep.client.serializer import JournalSerializer, decode_error, encode_error
from timestep.durable.journal.values import check_size, decode_value, encode_value
from timestep.errors import JournalFormatError, ResultTooLargeError, RunFailedError, ToolResultError

TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))  # lone surrogates and NUL included
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


class Point(BaseModel):
    x: int
    y: int


@given(JSON)
def test_json_survives_the_journal(value: Any) -> None:
    serializer = JournalSerializer()
    envelope = {"ok": encode_value(value, what="a test")}

    text = serializer.serialize(envelope)

    assert "\x00" not in text
    text.encode()
    assert decode_value(serializer.deserialize(text)["ok"]) == value


@given(
    st.lists(TEXT | st.integers(), max_size=3),
    st.dictionaries(st.sampled_from(["code", "body", "note"]), JSON, max_size=3),
)
def test_an_error_survives_the_journal(arguments: list[Any], fields: dict[str, Any]) -> None:
    error = JournalFormatError("broken")
    error.args = tuple(arguments)
    vars(error).update(fields)

    rebuilt = decode_error(json.loads(JournalSerializer().serialize(encode_error(error))))

    assert type(rebuilt) is JournalFormatError
    assert rebuilt.args == tuple(arguments)
    assert {name: vars(rebuilt)[name] for name in fields} == fields


def test_an_error_of_a_class_that_is_not_loaded_is_a_failed_run() -> None:
    rebuilt = decode_error({"type": "GoneError", "module": "gone_shop", "message": "closed"})

    assert type(rebuilt) is RunFailedError
    assert str(rebuilt) == "GoneError: closed"


@pytest.mark.parametrize("name", ["system", "SystemExit", "KeyboardInterrupt", "object", "Path"])
def test_what_is_no_error_is_never_made_of_an_envelope(name: str) -> None:
    for module in ("os", "builtins", "pathlib"):
        assert type(decode_error({"type": name, "module": module, "message": "x"})) is RunFailedError


def test_a_model_of_the_program_survives_by_its_name() -> None:
    assert decode_value(json.loads(json.dumps(encode_value(Point(x=1, y=2), what="a test")))) == Point(x=1, y=2)
    points = [Point(x=1, y=2), Point(x=3, y=4)]
    assert decode_value(encode_value(points, what="a test")) == points


def test_a_model_that_no_process_could_find_again_is_refused() -> None:
    class Hidden(BaseModel):
        x: int

    with pytest.raises(ToolResultError, match="another process cannot find"):
        encode_value(Hidden(x=1), what="a test")


def test_a_recorded_type_that_is_not_registered_says_what_to_do() -> None:
    with pytest.raises(JournalFormatError, match=r"'shop.Gone'") as found:
        decode_value({"$type": "shop.Gone", "value": 1})

    assert "register_serializer" in found.value.hint


def test_a_serializer_is_named_after_its_class_and_may_be_replaced() -> None:
    class Weight:
        def __init__(self, grams: int) -> None:
            self.grams = grams

    register_serializer(Weight, dump=lambda weight: -1, load=Weight)
    register_serializer(Weight, dump=lambda weight: weight.grams, load=Weight)
    data = encode_value(Weight(5), what="a test")

    assert data["$type"].endswith("Weight")
    assert decode_value(data).grams == 5


def test_the_size_is_that_of_the_stored_bytes() -> None:
    check_size("é" * 49, limit_bytes=100, what="a test")
    with pytest.raises(ResultTooLargeError):
        check_size("é" * 50, limit_bytes=100, what="a test")
