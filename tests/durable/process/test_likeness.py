"""What counts as the same code made twice, and what does not."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from agents import OpenAIProvider, RunConfig, input_guardrail
from openai import AsyncOpenAI

from timestep import MultiModelProvider
from timestep.durable.process.likeness import MOST_PARTS, Likeness


class Provider:
    def __init__(self, url: str = "http://one", **options: Any) -> None:
        self.url, self.options, self.lock = url, options, threading.Lock()
        self.client: object | None = None

    def open(self) -> None:
        self.client = object()

    def trim(self, data: Any) -> Any:
        return data


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


def local(answer: str) -> Any:
    class Local:
        def get_model(self, name: str) -> str:
            return answer + name

    return Local()


def trimmer(limit: int) -> Callable[[list[int]], list[int]]:
    return lambda items: items[:limit]


def first(items: list[int], limit: int = 1) -> list[int]:
    return items[:limit]


def guardrail(word: str) -> Any:
    @input_guardrail
    async def is_polite(context: Any, agent: Any, given: Any) -> Any:
        return word in given

    return is_polite


def circle(size: int) -> Provider:
    made = Provider(size=size)
    made.options["me"] = made
    return made


ALIKE: dict[str, Callable[[], Any]] = {
    "provider": Provider,
    "nested": lambda: Provider(inner=Provider("http://two"), sizes=[1, 2], names={"a", "b"}),
    "slots": lambda: Slotted(1),
    "local class": lambda: local("a"),
    "closure": lambda: trimmer(3),
    "method": lambda: Provider().trim,
    "partial": lambda: functools.partial(first, limit=2),
    "guardrails": lambda: [guardrail("please")],
    "circle": lambda: circle(1),
    "OpenAI": lambda: OpenAIProvider(openai_client=AsyncOpenAI(api_key="k")),
    "Timestep": lambda: MultiModelProvider(openai_api_key="k"),
    "large": lambda: Provider(items=[[number] for number in range(2 * MOST_PARTS)]),
}
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "argument": (Provider("http://one"), Provider("http://two")),
    "nested": (Provider(inner=Provider("http://one")), Provider(inner=Provider("http://two"))),
    "length": (Provider(sizes=[1]), Provider(sizes=[1, 2])),
    "names": (Provider(names={"a"}), Provider(names={"b"})),
    "key": (Provider(a=1), Provider(b=1)),
    "date": (Provider(day=date(2026, 1, 1)), Provider(day=date(2026, 1, 2))),
    "class": (Provider(), Slotted(1)),
    "slots": (Slotted(1), Slotted(2)),
    "local class": (local("a"), local("b")),
    "closure": (trimmer(3), trimmer(4)),
    "lambdas": (lambda data: data, lambda data: data[1:]),
    "method": (Provider("http://one").trim, Provider("http://two").trim),
    "methods": (Provider().trim, Provider().open),
    "partial": (functools.partial(first, limit=2), functools.partial(first, limit=3)),
    "guardrails": ([guardrail("please")], [guardrail("thanks")]),
    "circle": (circle(1), circle(2)),
    "OpenAI": (
        OpenAIProvider(openai_client=AsyncOpenAI(api_key="k")),
        OpenAIProvider(openai_client=AsyncOpenAI(api_key="l")),
    ),
    "records": (RunConfig(workflow_name="a"), RunConfig(workflow_name="b")),
}


@pytest.mark.parametrize("make", ALIKE.values(), ids=ALIKE.keys())
def test_what_is_made_twice_the_same_way_is_alike(make: Callable[[], Any]) -> None:
    assert Likeness.of(make()).is_like(Likeness.of(make()))


@pytest.mark.parametrize(("one", "two"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_is_made_another_way_is_not(one: Any, two: Any) -> None:
    assert Likeness.of(one).is_like(Likeness.of(one))
    assert not Likeness.of(one).is_like(Likeness.of(two))
    assert not Likeness.of(two).is_like(Likeness.of(one))


def test_what_an_object_opens_after_it_was_looked_at_is_no_difference() -> None:
    used = Provider()
    before = Likeness.of(used)
    used.open()

    assert before.is_like(Likeness.of(Provider()))
    assert not Likeness.of(used).is_like(Likeness.of(Provider()))


def test_a_shared_part_may_have_changed_since() -> None:
    shared = Provider()
    before = Likeness.of(Provider(inner=shared))
    shared.open()

    assert before.is_like(Likeness.of(Provider(inner=shared)))


def test_a_comparison_and_attributes_that_raise_make_nothing_fail() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise TypeError

        def __hash__(self) -> int:
            return 1

        @property
        def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
            raise OSError

    assert not Likeness.of(Odd()).is_like(Likeness.of(Odd()))
