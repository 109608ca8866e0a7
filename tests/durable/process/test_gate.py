"""The gate before every step: what it holds back, and for how long a look at the lock is good."""

from __future__ import annotations

import asyncio

import pytest

from timestep.durable.process.gate import Gate
from timestep.errors import ExecutorFencedError


async def is_held(gate: Gate, *, has_begun: bool = False) -> bool:
    """Whether a step waits at the gate."""
    passing = asyncio.ensure_future(gate.pass_through(has_begun=has_begun))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if passing.done():
        passing.result()
        return False
    passing.cancel()
    return True


async def test_it_is_open_until_the_lock_is_lost_and_again_when_it_is_back() -> None:
    gate = Gate()
    assert not await is_held(gate)
    gate.is_open = False
    assert await is_held(gate)
    gate.confirm(seconds=60)
    assert not await is_held(gate)


async def test_a_look_at_the_lock_is_good_for_a_time_only() -> None:
    gate = Gate()
    gate.confirm(seconds=-1)
    assert await is_held(gate)
    assert await is_held(gate, has_begun=True)
    gate.confirm(seconds=60)
    assert not await is_held(gate)


async def test_a_drain_holds_back_what_has_not_begun_and_a_look_at_the_lock_does_not_end_it() -> None:
    gate = Gate()
    gate.is_draining = True
    gate.confirm(seconds=60)
    assert await is_held(gate)
    assert not await is_held(gate, has_begun=True)


async def test_a_fenced_executor_begins_nothing() -> None:
    gate = Gate()
    gate.is_fenced = True
    for has_begun in (False, True):
        with pytest.raises(ExecutorFencedError):
            await is_held(gate, has_begun=has_begun)


async def test_a_new_executor_has_an_open_gate() -> None:
    gate = Gate()
    gate.is_draining = gate.is_fenced = True
    gate.confirm(seconds=-1)
    gate.reset()
    assert not await is_held(gate)
