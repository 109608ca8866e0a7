"""Statements that many tasks need at once, made as one.

A task alone makes its statement at once. What others ask for meanwhile waits until it is over, and is then asked in one
round: the more there is to do, the less each costs, in Python and in Postgres. This is the group commit of databases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

Q = TypeVar("Q")
Answer = asyncio.Future[float | None]
Waiting = tuple[Q, asyncio.AbstractEventLoop, Answer]

log = logging.getLogger("timestep")

MOST_IN_A_ROUND = 500


class Rounds(Generic[Q]):
    """Asks in rounds, one at a time, from any thread and event loop of the process.

    Args:
        ask: Returns which of the questions, by their numbers, are settled; blocks. Nothing is settled when it raises.
        pool: Where it is called.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], Collection[int]], pool: Executor) -> None:
        self._ask, self._pool = ask, pool
        self._lock = threading.Lock()
        self._waiting: list[Waiting[Q]] = []
        self._is_under_way = False

    async def settle(self, question: Q) -> float | None:
        """Return when the round began that settled the question, on the monotonic clock; None when it did not.

        A cancelled call leaves its question in the round.
        """
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        with self._lock:
            work = None if self._is_under_way else self._pool.submit(self._work)
            self._is_under_way = True
            self._waiting.append((question, loop, answer))
        if work is not None:
            work.add_done_callback(self._end)
        return await answer

    def _end(self, work: Future[None]) -> None:
        if work.cancelled():  # the pool was ended before the round began
            while round := self._next_round():
                _tell(round, {})

    def _work(self) -> None:
        while round := self._next_round():
            settled: Collection[int] = ()
            began_at = time.monotonic()
            try:
                settled = self._ask([question for question, _, _ in round])
            except Exception as error:  # noqa: BLE001 - each asks alone then, and hears what is wrong
                log.debug("A round of %d was not settled: %s", len(round), error)
            _tell(round, dict.fromkeys(settled, began_at))

    def _next_round(self) -> list[Waiting[Q]]:
        with self._lock:
            found, self._waiting = self._waiting[:MOST_IN_A_ROUND], self._waiting[MOST_IN_A_ROUND:]
            self._is_under_way = bool(found)
            return found


def _tell(round: Sequence[Waiting[Any]], settled: Mapping[int, float]) -> None:
    """Give each question its answer, in its own event loop: when it was settled, by its number, or None."""
    answers: dict[asyncio.AbstractEventLoop, list[tuple[Answer, float | None]]] = {}
    for number, (_, loop, answer) in enumerate(round):
        answers.setdefault(loop, []).append((answer, settled.get(number)))
    for loop, its in answers.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(_give, its)


def _give(answers: Iterable[tuple[Answer, float | None]]) -> None:
    for answer, settled_at in answers:
        if not answer.done():
            answer.set_result(settled_at)
