"""Any exception survives the journal: the same class where it is loaded, the same text, and no error on the way."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any

import agents
import httpx
import mcp
import openai
import pytest
import sqlalchemy.exc
from pydantic import BaseModel, ValidationError

from timestep import errors as timestep_errors
from timestep.client.serializer import JournalSerializer, decode_error, encode_error
from timestep.errors import RunFailedError


class Slotted(Exception):
    __slots__ = ("_secret", "code")

    def __init__(self, code: int, secret: str) -> None:
        self.code, self._secret = code, secret

    def __str__(self) -> str:
        return f"{self.code} {self._secret}"


class Private(Exception):
    def __init__(self, *, reason: str) -> None:
        self._reason = reason

    def __str__(self) -> str:
        return f"because {self._reason.upper()}"


class Required(ValueError):
    def __new__(cls, first: str, second: int) -> Required:
        return super().__new__(cls, first, second)

    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first} and {second}")


@dataclass(frozen=True)
class Frozen(Exception):
    code: int
    what: object


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")

    def __repr__(self) -> str:
        raise KeyError("no text")


class Uncomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    def __hash__(self) -> int:
        return 0


class Holding(Exception):
    def __init__(self, value: object) -> None:
        super().__init__("holds", value)
        self.value = value

    @property
    def request(self) -> object:
        raise RuntimeError("not set")

    more: int


class Outer:
    class Inner(LookupError):
        pass


class OwnGroup(ExceptionGroup[Exception]):
    def __str__(self) -> str:
        return f"own {self.message}"


class OwnOSError(OSError):
    pass


class Counted(Exception):
    subclasses = 0

    def __init_subclass__(cls) -> None:
        Counted.subclasses += 1

    def __init__(self, lock: object) -> None:
        self._lock = lock

    def __str__(self) -> str:
        return f"locked by {self._lock[0]}"  # type: ignore[index]


class Strict(BaseModel):
    size: int


def raised(make: Any) -> Exception:
    try:
        made = make()
        raise made if isinstance(made, BaseException) else AssertionError("nothing was raised")
    except Exception as error:
        return error


def chained() -> Exception:
    error = ValueError("outer")
    error.__cause__ = Private(reason="inner")
    return error


def statement_error() -> Exception:
    return sqlalchemy.exc.IntegrityError("insert into t values (:a)", {"a": object()}, Exception("duplicate key"))


REQUEST: Any = httpx.Request("GET", "http://localhost/x")
RESPONSE: Any = httpx.Response(429, request=REQUEST, json={"error": {"message": "slow"}})

MAKERS: dict[str, Any] = {
    "ValueError": lambda: ValueError("plain"),
    "no text": ValueError,
    "two arguments": lambda: ValueError("a", 2),
    "KeyError": lambda: {}["missing"],
    "FileNotFoundError": lambda: os.stat("/no/such/file"),
    "UnicodeDecodeError": b"\xff".decode,
    "UnicodeEncodeError": "\ud800".encode,
    "JSONDecodeError": lambda: json.loads("{"),
    "ImportError": lambda: __import__("no_such_module"),
    "SyntaxError": lambda: compile("1 +", "x", "exec"),
    "ZeroDivisionError": lambda: 1 / 0,
    "AttributeError": lambda: object().missing,  # type: ignore[attr-defined]
    "RecursionError": lambda: RecursionError("deep"),
    "StopAsyncIteration": lambda: StopAsyncIteration("x"),
    "TimeoutError": TimeoutError,
    "IncompleteReadError": lambda: asyncio.IncompleteReadError(b"x", 2),
    "ExceptionGroup": lambda: ExceptionGroup("two", [ValueError("a"), Private(reason="b")]),
    "nested groups": lambda: ExceptionGroup("o", [ExceptionGroup("i", [KeyError("a")])]),
    "own group": lambda: OwnGroup("mine", [ValueError("a")]),
    "slots": lambda: Slotted(3, "hush"),
    "private": lambda: Private(reason="so"),
    "required": lambda: Required("one", 2),
    "frozen": lambda: Frozen(3, object()),
    "holding": lambda: Holding(Uncomparable()),
    "nested class": lambda: Outer.Inner("inside"),
    "own OSError": lambda: OwnOSError(2, "gone", "file.txt"),
    "chained": chained,
    "MaxTurnsExceeded": lambda: agents.MaxTurnsExceeded("too many"),
    "ModelBehaviorError": lambda: agents.ModelBehaviorError("odd"),
    "ToolTimeoutError": lambda: agents.ToolTimeoutError("look", 3.0),
    "UserError": lambda: agents.UserError("wrong"),
    "httpx.ConnectError": lambda: httpx.ConnectError("refused", request=REQUEST),
    "httpx.HTTPStatusError": RESPONSE.raise_for_status,
    "httpx.ReadTimeout": lambda: httpx.ReadTimeout("late"),
    "openai.RateLimitError": lambda: openai.RateLimitError("slow", response=RESPONSE, body={"code": "slow"}),
    "openai.APIConnectionError": lambda: openai.APIConnectionError(request=REQUEST),
    "openai.APITimeoutError": lambda: openai.APITimeoutError(request=REQUEST),
    "openai.BadRequestError": lambda: openai.BadRequestError("bad", response=RESPONSE, body=None),
    "sqlalchemy.IntegrityError": statement_error,
    "sqlalchemy.NoResultFound": lambda: sqlalchemy.exc.NoResultFound("none"),
    "mcp.MCPError": lambda: mcp.MCPError(-32000, "closed"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_error_survives_with_its_class_and_its_text(name: str) -> None:
    error = raised(MAKERS[name])
    kind = type(error)

    for _ in range(2):  # a decoded error is stored again at the end of its run
        envelope = json.loads(JournalSerializer().serialize(error))["$error"]
        assert envelope["message"] == str(error)
        decoded = decode_error(envelope)
        assert isinstance(decoded, kind)
        assert (type(decoded).__module__, type(decoded).__qualname__) == (kind.__module__, kind.__qualname__)
        assert str(decoded) == str(error)
        assert (decoded.__cause__ is None) == (error.__cause__ is None)
        with pytest.raises(kind):
            raise decoded
        error = decoded


ALL = [
    kind
    for module in (timestep_errors, agents.exceptions, httpx, openai, sqlalchemy.exc, mcp)
    for kind in list(vars(module).values())
    if isinstance(kind, type) and issubclass(kind, Exception)
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_class_of_a_library_survives_even_when_it_is_half_made(kind: type[Exception]) -> None:
    if issubclass(kind, ExceptionGroup):
        return
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    error = base.__new__(kind)
    error.args = ("half made",)
    decoded = decode_error(json.loads(json.dumps(encode_error(error))))
    assert isinstance(decoded, kind)
    assert str(decoded) == encode_error(error)["message"]


def test_what_a_class_only_makes_itself_is_told_by_name_with_its_text() -> None:
    error = raised(lambda: Strict.model_validate({"size": "big"}))
    assert isinstance(error, ValidationError)
    decoded = decode_error(encode_error(error))
    assert isinstance(decoded, RunFailedError)
    assert str(decoded) == f"ValidationError: {error}"


def test_an_error_without_a_text_is_stored_all_the_same() -> None:
    envelope = encode_error(Unprintable("given", Unprintable()))
    assert envelope["message"] == "'given', <Unprintable> (its text raises KeyError)"
    assert isinstance(decode_error(envelope), Unprintable)
    assert str(decode_error(envelope)) == envelope["message"]


def test_fields_in_slots_and_the_errors_of_a_group_are_kept() -> None:
    slotted = decode_error(encode_error(Slotted(3, "hush")))
    assert isinstance(slotted, Slotted)
    assert slotted.code == 3
    group = decode_error(encode_error(ExceptionGroup("two", [ValueError("a"), Private(reason="b")])))
    assert isinstance(group, ExceptionGroup)
    assert [str(each) for each in group.exceptions] == ["a", "because B"]


def test_a_class_does_not_hear_of_the_subclass_that_says_its_text() -> None:
    assert str(decode_error(encode_error(Counted(["nobody"])))) == "locked by nobody"
    assert Counted.subclasses == 0
