"""Declare queues, and make those that the engine needs."""

from __future__ import annotations

import logging

from dbos import DBOS

from timestep.client import queues as desk
from timestep.durable.process.engine import engine, is_engine_launched
from timestep.durable.process.threads import run_in_thread
from timestep.errors import InvalidInputError, SettingsError
from timestep.ids import DEFAULT_QUEUE, SEGMENT_QUEUE, check_queue_name
from timestep.records import QueueLimits

log = logging.getLogger("timestep")


def create_queue(
    name: str,
    *,
    global_concurrency: int | None = None,
    worker_concurrency: int | None = None,
    partition_concurrency: int | None = None,
    rate_limit: int | None = None,
    rate_period_seconds: float = 60.0,
    polling_interval_seconds: float = 1.0,
) -> str:
    """Declare a queue, before or after the engine is launched, and return its name.

    The queue is a row: it stays, and every executor of the application takes runs from it. Declared again with other
    limits it has those from then on, unless a newer version of the application runs; a paused queue stays paused.
    Limits as in `QueueLimits`.

    Raises:
        InvalidInputError: the name or a limit is malformed, or the queue is another application's.
    """
    check_queue_name(name)
    limits = QueueLimits(
        global_concurrency=global_concurrency,
        worker_concurrency=worker_concurrency,
        partition_concurrency=partition_concurrency,
        rate_limit=rate_limit,
        rate_period_seconds=rate_period_seconds,
        polling_interval_seconds=polling_interval_seconds,
    )
    if is_engine_launched():
        run_in_thread(lambda: _declare(name, limits))
    else:
        _declared[name] = limits
    return name


_declared: dict[str, QueueLimits] = {}
"""Queues that were declared before the engine was launched."""


def make_queues() -> None:
    """Make the queues that the engine itself uses, those of the settings and those that were declared before.

    Raises:
        SettingsError: the database is another application's.
    """
    client = engine().client
    try:
        for name, limits in ((DEFAULT_QUEUE, desk.DEFAULT_LIMITS), (SEGMENT_QUEUE, desk.SEGMENT_LIMITS)):
            desk.register(client.register_queue, name, limits, on_conflict="never_update")
    except InvalidInputError as error:
        raise SettingsError(
            f"The application {engine().settings.name!r} cannot use the database {engine().database.display_url}: "
            f"{str(error.__cause__).partition('. ')[0]}.",
            hint="Each application has a database of its own: name another one in PG_CONNECTION_URI. If this one only "
            "has a new name, take the old one, `name` in `dbos-config.yaml`, or see `dbos rename-application --help`.",
        ) from error
    declared = {**engine().settings.queues, **_declared}
    _declared.clear()
    for name, limits in declared.items():
        _declare(name, limits)


def _declare(name: str, limits: QueueLimits) -> None:
    if (
        desk.create_queue(engine().connector, name, limits, replace=True, register_queue=DBOS.register_queue)
        == "changed"
    ):
        log.warning("The queue %r has other limits now: %s", name, limits)
