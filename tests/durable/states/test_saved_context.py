"""Contexts in stored states: they come back as they were, or are refused with the field that would be lost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from agents import Agent, Runner
from agents.testing import function_call
from pydantic import BaseModel
from refund_desk import Desk, Turns, approved

from timestep import (
    RunStateStore,
    register_agents,
    run_agent,
)
from timestep.durable.process.registered_agents import forget_agents
from timestep.errors import (
    InvalidInputError,
    SnapshotMismatchError,
)


@dataclasses.dataclass
class Cart:
    """A context."""

    owner: str
    items: list[Any] = dataclasses.field(default_factory=list)


class Basket(BaseModel):
    """A context of pydantic."""

    owner: str
    _secret: str = "none"


class Opaque:
    """A context that only its program can write."""

    def __init__(self, owner: str) -> None:
        self.owner = owner


async def test_contexts_of_the_registered_type_come_back(engine: Any) -> None:
    for context in (Cart("ada", [1, {"a": None}]), Basket(owner="ada"), {"owner": "ada", "n": [1.5, True]}):
        desk = Desk()
        if not isinstance(context, dict):
            forget_agents()
            register_agents(desk.agent, context_type=type(context))
        store = await desk.interrupted(context=context)
        result = await run_agent(desk.agent, await approved(store))
        assert (result.output, result.context_wrapper.context) == ("done", context)


async def test_a_context_comes_back_by_its_own_serializers(engine: Any) -> None:
    desk = Desk()
    result = await Runner.run(
        Agent(name="desk", model=Turns(function_call("refund", {"order": "7"}, call_id="c1")), tools=desk.agent.tools),
        "Refund", context=Opaque("ada"),
    )  # fmt: skip
    store = RunStateStore(
        desk.agent, context_serializer=lambda context: {"who": context.owner},
        context_deserializer=lambda data: Opaque(data["who"]),
    )  # fmt: skip
    await store.save(result.to_state())
    assert (await run_agent(desk.agent, await approved(store))).context_wrapper.context.owner == "ada"

    with pytest.raises(SnapshotMismatchError, match="Opaque") as refusal:
        await RunStateStore(desk.agent, store.session_id).load()
    assert "context_deserializer" in refusal.value.hint
    bad = RunStateStore(desk.agent, context_serializer=lambda context: {"who": {1, 2}})
    with pytest.raises(InvalidInputError, match=r"context\.who is a set"):
        await bad.save(result.to_state())


def with_secret() -> Basket:
    basket = Basket(owner="ada")
    basket._secret = "kept?"  # pyright: ignore[reportPrivateUsage] - the test is about it
    return basket


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"cart": {"items": [1, 2, object()]}}, r"context\.cart\.items\[2\]"),
        ({"when": {1: "x"}}, r"context\.when has the key 1"),
        ({"price": float("nan")}, r"context\.price"),
        (Cart("ada", [{"x": object()}]), r"context\.items\[0\]\.x"),
        (with_secret(), r"context\._secret"),
        (Opaque("ada"), "Opaque"),
    ],
)
async def test_what_json_cannot_keep_is_refused_at_save_with_its_field(engine: Any, context: Any, field: str) -> None:
    with pytest.raises(InvalidInputError, match=field):
        await Desk().interrupted(session_id="refused", context=context)
    assert engine.query("select 1 from timestep.run_states where session_id = 'refused'") == []
