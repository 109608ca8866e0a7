"""Statements that many tasks need at once, made as one.

A task alone makes its statement at once. What others ask for meanwhile waits until it is over, and is then asked in one
round: the more there is to do, the less each costs, in Python and in Postgres. This is the group commit of databases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Q = TypeVar("Q")
Waiting = tuple[Q, asyncio.AbstractEventLoop, "asyncio.Future[bool]"]

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

    async def settles(self, question: Q) -> bool:
        """Return whether a round settled the question. A cancelled call leaves its question in the round."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        with self._lock:
            if not self._is_under_way:
                self._pool.submit(self._work)
                self._is_under_way = True
            self._waiting.append((question, loop, answer))
        return await answer

    def _work(self) -> None:
        while round := self._next_round():
            settled: Collection[int] = ()
            try:
                settled = self._ask([question for question, _, _ in round])
            except Exception as error:  # noqa: BLE001 - each asks alone then, and hears what is wrong
                log.debug("A round of %d was not settled: %s", len(round), error)
            answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[bool], bool]]] = {}
            for number, (_, loop, answer) in enumerate(round):
                answers.setdefault(loop, []).append((answer, number in settled))
            for loop, its in answers.items():
                with contextlib.suppress(RuntimeError):  # the loop was closed
                    loop.call_soon_threadsafe(_give, its)

    def _next_round(self) -> list[Waiting[Q]]:
        with self._lock:
            found, self._waiting = self._waiting[:MOST_IN_A_ROUND], self._waiting[MOST_IN_A_ROUND:]
            self._is_under_way = bool(found)
            return found


def _give(answers: Sequence[tuple[asyncio.Future[bool], bool]]) -> None:
    for answer, is_settled in answers:
        if not answer.done():
            answer.set_result(is_settled)
