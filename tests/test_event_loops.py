"""What belongs to an event loop, and how its end is noticed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from timestep import event_loops
from timestep.errors import UnsupportedError
from timestep.event_loops import explained, of_running_loop


class Thing:
    """Something that is closed in the loop that made it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed_in: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed_in = asyncio.get_running_loop()


async def thing() -> Thing:
    return of_running_loop("thing", Thing, Thing.close)


async def test_a_loop_has_a_thing_once() -> None:
    assert await thing() is await thing()


def test_each_loop_has_its_own_and_closes_it_before_it_ends() -> None:
    made = [asyncio.run(thing()) for _ in range(2)]
    assert made[0] is not made[1]
    assert [each.closed_in for each in made] == [each.loop for each in made]


def test_what_fails_to_close_keeps_nothing_else_open() -> None:
    async def fail(_: object) -> None:
        raise ConnectionError

    async def main() -> Thing:
        first = await thing()
        of_running_loop("bad", object, fail)
        return first

    made = asyncio.run(main())
    assert made.closed_in is made.loop


def test_a_drain_closes_what_loops_of_other_threads_have() -> None:
    made: list[Thing] = []
    over = threading.Event()

    async def main() -> None:
        made.append(await thing())
        await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    while not made:
        thread.join(0.01)
    event_loops.close_others()
    assert made[0].closed_in is made[0].loop
    over.set()
    thread.join()


async def test_a_drain_in_the_loop_itself_closes_when_the_loop_goes_on() -> None:
    made = await thing()
    event_loops.close_others(asyncio.get_running_loop())
    assert made.closed_in is None
    closing = event_loops.close_here()
    assert closing is not None
    await closing
    assert made.closed_in is made.loop
    assert event_loops.close_here() is None


Ending = Callable[[asyncio.AbstractEventLoop], None]


def end_with_a_word(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def end_without_a_word(loop: asyncio.AbstractEventLoop) -> None:
    loop.close()
    event_loops.look()


def pause(loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(event_loops.LOOKS_BEFORE_PAUSED):
        event_loops.look()


@pytest.mark.parametrize("end", [end_with_a_word, end_without_a_word, pause])
def test_the_end_of_a_loop_is_told_once(end: Ending) -> None:
    told: list[asyncio.AbstractEventLoop] = []

    def listen(ended: asyncio.AbstractEventLoop) -> None:
        if ended is loop:
            told.append(ended)

    async def notice() -> None:
        event_loops.notice_end()
        assert event_loops.is_usable(loop)

    loop = asyncio.new_event_loop()
    event_loops.on_end(listen)
    try:
        loop.run_until_complete(notice())
        end(loop)
        event_loops.look()
        assert told == [loop]
        assert not event_loops.is_usable(loop)
    finally:
        event_loops.forget_listener(listen)
        loop.close()


async def test_a_loop_that_does_not_come_round_is_stuck_until_it_does() -> None:
    event_loops.notice_end()
    loop = asyncio.get_running_loop()
    for _ in range(event_loops.LOOKS_BEFORE_STUCK):
        assert event_loops.is_usable(loop)
        event_loops.look()
    assert not event_loops.is_usable(loop)
    await asyncio.sleep(0)
    assert event_loops.is_usable(loop)


def test_a_lock_of_another_loop_is_explained() -> None:
    lock = asyncio.Lock()

    async def wait_for_it() -> None:
        async with lock:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(lock.acquire(), 0.01)

    async def use_it() -> Exception:
        await lock.acquire()
        waiting: Awaitable[bool] = lock.acquire()
        with pytest.raises(RuntimeError) as caught:
            await waiting
        return explained(caught.value)

    asyncio.run(wait_for_it())
    error = asyncio.run(use_it())
    assert isinstance(error, UnsupportedError)
    assert "another event loop" in str(error)
    assert "for each loop" in (error.hint or "")


def test_other_errors_stay_as_they_are() -> None:
    error = RuntimeError("no money")
    assert explained(error) is error
