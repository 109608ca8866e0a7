"""What the annotation of a tool shows is refused when the agent is registered, not after the tool has run."""

from __future__ import annotations

import abc
import collections.abc
import dataclasses
import datetime
import io
from typing import Annotated, Any, Literal, Protocol, TypedDict

import pytest
from agents import Agent, function_tool
from pydantic import BaseModel, SecretStr
from zoo import Line, Owner, Page, Pair

from timestep import register_agents, register_serializer
from timestep.durable.values.annotations import reason_not_kept
from timestep.errors import NotDurableError


class Plain:
    """A class of which nobody knows what makes it."""


class Known:
    """A class with a serializer."""


class Base(abc.ABC):
    @abc.abstractmethod
    def price(self) -> int: ...


class Parent:
    """A class of which a dataclass inherits."""


@dataclasses.dataclass
class Child(Parent):
    x: int


class Priced(Protocol):
    price: int


class Row(TypedDict):
    at: datetime.datetime


register_serializer(Known, dump=lambda value: 1, load=lambda data: Known())


@pytest.mark.parametrize(
    "annotation",
    [
        str, int, None, Any, object, dict, list[dict[str, Line]], Line, Owner, Page[int], Pair, Row, Base, Parent,
        Priced, Known, Line | None, Annotated[Line, 1], Literal["a"], collections.abc.Sequence[Line], tuple[Line, ...],
        datetime.datetime, set[str], frozenset[Pair], bytes, BaseModel,
    ],
    ids=str,
)  # fmt: skip
def test_what_may_come_back_is_fine(annotation: Any) -> None:
    assert reason_not_kept(annotation) is None


@pytest.mark.parametrize(
    "annotation",
    [
        Plain, list[Plain], dict[str, Plain | None], Plain | str, Annotated[Plain, 1], io.TextIOWrapper, SecretStr,
        collections.abc.Iterator[int], collections.abc.AsyncIterator[int], collections.abc.Callable[[], int],
        type[Line],
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_come_back_has_a_reason(annotation: Any) -> None:
    assert reason_not_kept(annotation)


def test_a_tool_that_returns_it_is_refused_at_registration_with_its_name() -> None:
    @function_tool
    def make() -> Plain:
        return Plain()

    inner = Agent(name="inner", tools=[make])
    with pytest.raises(NotDurableError, match=r"tool 'make' of the agent 'inner'.*Plain") as refusal:
        register_agents(Agent(name="outer", handoffs=[inner]))
    assert "register_serializer" in refusal.value.hint


def test_a_context_type_that_cannot_come_back_is_refused_at_registration() -> None:
    with pytest.raises(NotDurableError, match="Plain"):
        register_agents(Agent(name="outer"), context_type=Plain)
