"""Run reserved steps, the short ways where the release of DBOS allows them and its public way where it does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from dbos import DBOS, StepReservation
from sqlalchemy import Engine

from timestep.durable.seams.dbos_sdk import autocommit_engine, instance_of_process
from timestep.durable.seams.known_steps import Known
from timestep.durable.seams.release_check import DBOS_RELEASE

if TYPE_CHECKING:
    from timestep.durable.seams.dbos_speed import ShortWays

T = TypeVar("T")
_journal: tuple[DBOS, ShortWays | None] | None = None
"""A DBOS instance, and the short ways to its rows, if any."""


async def run_reserved(
    reservation: StepReservation, name: str, body: Callable[[], Awaitable[tuple[T, str]]], known: Known
) -> T:
    """Run `body` as the step of a reservation and return its result, the recorded or the just made one.

    `body` returns its result and the text that the journal's serializer makes of it.
    """
    if (ways := _short_ways()) is not None:
        return await ways.run_reserved(reservation, name, body, known)

    async def value() -> T:
        return (await body())[0]

    return await reservation.run_async({"name": name}, value)


def shorten_ways(engine: Engine | None = None) -> None:
    """Make `run_reserved` look and record on `engine`, whose connections are in autocommit; after the launch."""
    global _journal
    instance, ways = instance_of_process(), None
    with DBOS_RELEASE.optional("Looking for steps and recording them"):
        from timestep.durable.seams.dbos_speed import ShortWays  # optional: it may need what this release lacks

        ways = ShortWays(instance, engine or autocommit_engine())
    _journal = (instance, ways)


def _short_ways() -> ShortWays | None:
    if _journal is None or _journal[0] is not instance_of_process():
        shorten_ways()
    assert _journal is not None
    return _journal[1]
