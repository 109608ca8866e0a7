"""A crowd goes on one after another; who is alone does not wait."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, Usage
from agents.testing import assistant_message

from timestep import run_agent_workflow
from timestep.durable.journal import step
from timestep.durable.process import turnstile
from timestep.durable.process.turnstile import CALM_SECONDS, ROUNDS_BETWEEN, Turnstile


class Clock:
    """One that stands."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def has_gone(turnstile: Turnstile) -> bool:
    """Whether one that comes now goes through without waiting."""
    passage = turnstile.go_through().__await__()
    try:
        next(passage)
    except StopIteration:
        return True
    return False


async def test_who_comes_alone_does_not_wait() -> None:
    clock = Clock()
    stile = Turnstile(clock)
    assert has_gone(stile)
    clock.now += CALM_SECONDS
    assert has_gone(stile)
    clock.now += CALM_SECONDS / 2
    assert not has_gone(stile)


async def test_a_crowd_goes_through_in_its_order_and_one_is_far_when_the_next_follows() -> None:
    stile, log = Turnstile(), list[str]()

    async def go_on(name: str) -> None:
        await stile.go_through()
        log.append(f"{name} begins")
        for _ in range(ROUNDS_BETWEEN - 1):
            await asyncio.sleep(0)
        log.append(f"{name} is far")

    await asyncio.gather(*(go_on(name) for name in "abcd"))

    assert log == [f"{name} {verb}" for name in "abcd" for verb in ("begins", "is far")]


async def test_who_is_cancelled_holds_nobody_up() -> None:
    clock = Clock()
    stile = Turnstile(clock)
    await stile.go_through()
    first, second, third, fourth = (asyncio.create_task(stile.go_through()) for _ in range(4))
    await asyncio.sleep(0)
    first.cancel()
    third.cancel()
    fourth.cancel()

    async with asyncio.timeout(60):
        await second
    while stile._waiting:
        await asyncio.sleep(0)
    clock.now += CALM_SECONDS
    assert has_gone(stile)


def test_a_loop_that_has_ended_is_not_kept() -> None:
    loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    async def pass_by() -> None:
        loops.add(asyncio.get_running_loop())
        await asyncio.gather(turnstile.go_through(), turnstile.go_through())

    asyncio.run(pass_by())
    gc.collect()
    assert not loops


class Slow(Model):
    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        await asyncio.sleep(step.LONG_SECONDS)
        return ModelResponse(output=[assistant_message("done")], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


async def test_a_run_goes_through_when_a_long_step_is_recorded(
    engine: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[list[str]] = []

    async def note() -> None:
        recorded.append(engine.steps(new_id))

    monkeypatch.setattr(turnstile, "go_through", note)
    assert (await run_agent_workflow(Agent(name="slow", model=Slow()), "Go", workflow_id=new_id)).output == "done"
    assert recorded == [["model_turn:1:slow"]]
