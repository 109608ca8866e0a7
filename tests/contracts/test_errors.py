"""Every error says what to do next, and is the same after the journal and after pickling."""

from __future__ import annotations

import inspect
import pickle
import re
import traceback
from typing import Any

import pytest

from timestep import errors
from timestep.client.serializer import decode_error, encode_error
from timestep.errors import TimestepError

ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TimestepError)]
GIVEN: dict[str, Any] = {
    "message": "It happened to run-7.",
    "hint": "Do this.",
    "run_id": "run-7",
    "interruptions": [{"call_id": "call_1"}],
    "approval_id": "a1",
    "status": "approved",
    "decided_by": "ann",
    "decided_at": "2026-11-25T12:00:00+00:00",
    "status_code": 503,
    "retry_after_seconds": 2.5,
    "retryable": True,
}


def given_error(kind: type[TimestepError]) -> TimestepError:
    return kind(**{name: GIVEN[name] for name in inspect.signature(kind).parameters})


def same(error: Exception, original: TimestepError) -> None:
    assert type(error) is type(original)
    assert str(error) == GIVEN["message"]
    assert error.args == original.args
    assert vars(error) == vars(original)
    for name in inspect.signature(type(original)).parameters:
        assert getattr(error, name) == GIVEN[name]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_says_what_happened_and_what_to_do_next(kind: type[TimestepError]) -> None:
    error = kind()
    assert str(error) == error.message == (kind.__doc__ or "").splitlines()[0]
    assert re.fullmatch(r"[A-Z].*\.", error.hint)
    assert isinstance(error.retryable, bool)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_journal_with_its_fields(kind: type[TimestepError]) -> None:
    error = given_error(kind)
    same(decode_error(encode_error(error)), error)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_its_fields(kind: type[TimestepError]) -> None:
    error = given_error(kind)
    same(pickle.loads(pickle.dumps(error)), error)


def test_a_traceback_shows_the_hint_once() -> None:
    errors: list[Exception] = [TimestepError("wrong"), TimestepError("wrong", hint="Do this.")]
    errors += [pickle.loads(pickle.dumps(error)) for error in errors] + [
        decode_error(encode_error(error)) for error in errors
    ]
    for error in errors:
        assert isinstance(error, TimestepError)
        shown = "".join(traceback.format_exception(error))
        assert shown.endswith(f"TimestepError: wrong\nhint: {error.hint}\n")
        assert shown.count("hint: ") == 1


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").split("```")[1].strip().splitlines():
        marks, name = re.match(r"([│├└─ ]*)(\w+)", line).groups()  # type: ignore[union-attr]
        above[len(marks) // 4 :] = [name]
        drawn[name] = above[-2] if len(above) > 1 else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in ERRORS}
