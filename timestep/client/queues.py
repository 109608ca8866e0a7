"""Every verb on queues, and the way of a run into one: over DBOS's client and the store, launching nothing.

A queue is a row of DBOS. DBOS cannot pause one: here a paused queue has a rate limit below one, which lets nothing
start, and the limit that it had is kept in it as a negative number, so that there is nothing to bring together.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

import sqlalchemy as sa
from dbos import Queue as DbosQueue
from dbos import error as dbos_error

from timestep.client.connector import Connector
from timestep.client.runs import check_same_input, digest_of
from timestep.errors import (
    InvalidInputError,
    QueueNotEmptyError,
    QueueNotFoundError,
    RunDuplicatedError,
)
from timestep.ids import DEFAULT_QUEUE, SEGMENT_QUEUE, check_queue_name
from timestep.records import LARGEST_NUMBER, OneAtATime, Queue, QueuedRun, QueueLimits, RunRequest, is_whole_from_one
from timestep.store import queues as store
from timestep.store.run_states import claim_for_run
from timestep.store.runs import find_stored_run

OnDuplicate = Literal["raise", "return"]
Change = Literal["made", "changed", "unchanged"]

BATCH_RUNS = 500
"""Runs that are stored in one transaction."""

DEFAULT_LIMITS = QueueLimits(rate_limit=50, rate_period_seconds=60)
"""Of the default queue: at most 50 starts in 60 seconds."""

SEGMENT_LIMITS = QueueLimits(polling_interval_seconds=0.25)
"""Of the queue of segments that go on: a person may be waiting."""

LONGEST_DELAY_SECONDS = 315_360_000
"""Ten years."""


def queued_run(
    request: RunRequest,
    *,
    application: str,
    queue: str | None = None,
    one_at_a_time: OneAtATime | None = "session",
    priority: int | None = None,
    deduplication_id: str | None = None,
    delay_seconds: float | None = None,
    partition_key: str | None = None,
) -> QueuedRun:
    """Return a request with how a queue takes it, checked; `queue` is the default one when absent.

    Raises:
        InvalidInputError: a value is malformed.
    """
    if one_at_a_time not in ("session", None):
        raise InvalidInputError(f"one_at_a_time is 'session' or None, not {one_at_a_time!r}.")
    if priority is not None and not is_whole_from_one(priority):
        raise InvalidInputError(
            f"priority is a whole number from 1, the highest, to {LARGEST_NUMBER}, not {priority!r}."
        )
    if delay_seconds is not None and not _is_delay(delay_seconds):
        raise InvalidInputError(
            f"delay_seconds is a number of seconds from 0 to {LONGEST_DELAY_SECONDS}, not {delay_seconds!r}."
        )
    return QueuedRun(
        request=request,
        input_digest=digest_of(request),
        queue=DEFAULT_QUEUE if queue is None else check_queue_name(queue),
        application=application,
        one_at_a_time=one_at_a_time,
        priority=priority,
        deduplication_id=_text(deduplication_id, "deduplication_id"),
        partition_key=_text(partition_key, "partition_key"),
        start_after=datetime.now(UTC) + timedelta(seconds=delay_seconds) if delay_seconds else None,
    )


def queue_run(
    connector: Connector,
    request: RunRequest,
    *,
    queue: str | None = None,
    priority: int | None = None,
    deduplication_id: str | None = None,
    delay_seconds: float | None = None,
) -> str:
    """Queue a run for the executors of the application; return its id. See `queued_run` and `enqueue_runs`."""
    queued = queued_run(
        request,
        application=connector.application,
        queue=queue,
        priority=priority,
        deduplication_id=deduplication_id,
        delay_seconds=delay_seconds,
    )
    return enqueue_run(connector, queued)


def enqueue_run(connector: Connector, queued: QueuedRun, *, on_duplicate: OnDuplicate = "raise") -> str:
    """Store and enqueue one run; see `enqueue_runs`. Return its id, or that of the run with its deduplication id."""
    return enqueue_runs(connector, [queued], on_duplicate=on_duplicate)[0]


def enqueue_runs(
    connector: Connector, queued: Iterable[QueuedRun], *, on_duplicate: OnDuplicate = "raise"
) -> list[str]:
    """Store runs and enqueue them, `BATCH_RUNS` in a transaction; return their ids in the order of `queued`.

    A known id with the same input is that run. With `on_duplicate="return"` a run whose deduplication id another one
    has is not stored, and the id of that other one is returned in its place. May be repeated: what an earlier call has
    stored stays as it is. Queues are made on first use.

    Raises:
        InvalidInputError: `on_duplicate` is another word, or a queue is partitioned and a run has no partition.
        RunInputMismatchError: an id is known with another input.
        RunDuplicatedError: another run has the deduplication id.
        SnapshotAlreadyResumed: a run goes on from a snapshot that somebody else has resumed.
    """
    if on_duplicate not in ("raise", "return"):
        raise InvalidInputError(f"on_duplicate is 'raise' or 'return', not {on_duplicate!r}.")
    wanted, ids = list(queued), list[str]()
    ensure_queues(connector, wanted)
    rest = iter(wanted)
    while batch := list(islice(rest, BATCH_RUNS)):
        ids += _enqueue_batch(connector, batch, on_duplicate)
    return ids


def ensure_queues(connector: Connector, queued: Sequence[QueuedRun]) -> None:
    """Make the queues of runs that are not there, without limits but on the default one.

    Raises:
        InvalidInputError: a queue is partitioned and a run has no partition, or the other way round.
    """
    for name in sorted({each.queue for each in queued}):
        known = connector.dbos.retrieve_queue(name)
        if known is None:
            limits = DEFAULT_LIMITS if name == DEFAULT_QUEUE else QueueLimits()
            register(connector.dbos.register_queue, name, limits, on_conflict="never_update")
        is_partitioned = known is not None and _is_partitioned(known)
        for each in queued:
            if each.queue == name and is_partitioned != (each.partition_key is not None):
                _refuse_partition(each)


def list_queues(connector: Connector) -> list[Queue]:
    """Return the queues of the application in the order of their names, with what is in them."""
    counts = connector.database.run_sync(store.count_by_queue)
    found = sorted(connector.dbos.list_queues(), key=lambda queue: queue.name)
    return [_queue_of(queue, counts.get(queue.name, {})) for queue in found]


def get_queue(connector: Connector, name: str) -> Queue:
    """Return a queue with what is in it.

    Raises:
        QueueNotFoundError: there is none of that name.
    """
    return _queue_of(_get(connector, name), connector.database.run_sync(store.count_by_queue).get(name, {}))


def create_queue(
    connector: Connector,
    name: str,
    limits: QueueLimits,
    *,
    replace: bool = False,
    register_queue: Callable[..., DbosQueue] | None = None,
) -> Change:
    """Make a queue, or with `replace` give one that is there other limits; say which. A paused one stays paused.

    `register_queue` is DBOS's own where the code of an application declares the queue: of two versions the newer one
    then has its way.

    Raises:
        InvalidInputError: the name is malformed or another application's, or it is there with other limits.
    """
    check_queue_name(name)
    known = connector.dbos.retrieve_queue(name)
    before = _limits_of(known) if known is not None else None
    if before == limits:
        return "unchanged"
    if before is not None and not replace:
        differing = ", ".join(_differences(before, limits))
        raise InvalidInputError(
            f"The queue {name!r} is there with other limits: {differing}.",
            hint="Pass replace=True (--replace) to change it; what is not given then has no limit.",
        )
    if register_queue is None:
        register(connector.dbos.register_queue, name, limits, is_paused=_is_paused(known), on_conflict="always_update")
    else:
        register(register_queue, name, limits, is_paused=_is_paused(known), on_conflict="update_if_latest_version")
    return "made" if before is None else "changed" if find_limits(connector, name) == limits else "unchanged"


def pause_queue(connector: Connector, name: str) -> bool:
    """Let no run of a queue start any more; those that run go on. Return False when it was paused before.

    Raises:
        QueueNotFoundError: there is none of that name.
        InvalidInputError: it is a queue of the engine.
    """
    return _set_paused(connector, name, True)


def resume_queue(connector: Connector, name: str) -> bool:
    """Let the runs of a paused queue start again. Return False when it was not paused.

    Raises:
        QueueNotFoundError: there is none of that name.
        InvalidInputError: it is a queue of the engine.
    """
    return _set_paused(connector, name, False)


def delete_queue(connector: Connector, name: str) -> None:
    """Delete a queue that is empty. Those that run go on.

    Raises:
        QueueNotFoundError: there is none of that name.
        QueueNotEmptyError: runs or workflows wait in it.
        InvalidInputError: the engine needs it.
    """
    if name == DEFAULT_QUEUE:
        raise InvalidInputError(
            f"The queue {name!r} is made again at each launch.", hint=f"Pause it with `timestep queues pause {name}`."
        )
    check_queue_name(name)
    waiting = get_queue(connector, name).waiting
    others = connector.dbos.list_workflows(
        queue_name=name, status=["ENQUEUED", "DELAYED"], limit=1, load_input=False, load_output=False
    )
    if waiting or others:
        raise QueueNotEmptyError(
            f"In the queue {name!r} {waiting or 'other'} {'runs' if waiting else 'workflows'} wait."
        )
    connector.dbos.delete_queue(name)


def find_limits(connector: Connector, name: str) -> QueueLimits | None:
    """Return the limits of a queue; None when there is none of that name."""
    known = connector.dbos.retrieve_queue(name)
    return _limits_of(known) if known is not None else None


def register(
    register_queue: Callable[..., Any], name: str, limits: QueueLimits, *, is_paused: bool = False, on_conflict: str
) -> None:
    """Store a queue by DBOS's own function.

    Raises:
        InvalidInputError: it is another application's.
    """
    try:
        register_queue(
            name,
            global_concurrency=limits.global_concurrency,
            worker_concurrency=limits.worker_concurrency,
            partition_concurrency=limits.partition_concurrency,
            limiter=_limiter(limits, is_paused=is_paused),
            polling_interval_sec=limits.polling_interval_seconds,
            on_conflict=on_conflict,
        )
    except (dbos_error.DBOSException, ValueError) as error:
        raise InvalidInputError(f"DBOS refuses the queue {name!r}: {error}") from error


def _enqueue_batch(connector: Connector, batch: Sequence[QueuedRun], on_duplicate: OnDuplicate) -> list[str]:
    ids: dict[int, str] = {}
    while left := [number for number in range(len(batch)) if number not in ids]:
        queued = [batch[number] for number in left]
        if any(each.request.resumes_snapshot is not None for each in queued):
            stored = connector.database.run_sync(_insert_claiming, queued)
        else:
            stored = connector.database.run_sync(store.insert_queued, queued)
        others = [number for number in left if batch[number].request.run_id not in stored]
        ids |= {number: batch[number].request.run_id for number in left if number not in others}
        if others:
            ids |= _known(connector, {number: batch[number] for number in others}, on_duplicate)
        # What is left was refused for a run that has ended since.
    return [ids[number] for number in range(len(batch))]


def _insert_claiming(connection: sa.Connection, queued: Sequence[QueuedRun]) -> set[str]:
    stored = store.insert_queued(connection, queued)
    for request in (each.request for each in queued):
        if request.run_id in stored and request.resumes_snapshot is not None:
            claim_for_run(connection, request.resumes_snapshot, run_id=request.run_id)
    return stored


def _known(connector: Connector, queued: dict[int, QueuedRun], on_duplicate: OnDuplicate) -> dict[int, str]:
    """Return the runs that are there instead of those that were not stored."""
    known: dict[int, str] = {}
    digests = connector.database.run_sync(store.digests_of, [each.request.run_id for each in queued.values()])
    pairs = [(each.queue, each.deduplication_id) for each in queued.values() if each.deduplication_id is not None]
    holders = connector.database.run_sync(store.holders_of, pairs)
    for number, each in queued.items():
        run_id = each.request.run_id
        if run_id in digests:
            if digests[run_id] != each.input_digest:
                stored = connector.database.run_sync(find_stored_run, run_id)
                before = stored.request if stored is not None else None
                check_same_input(each.request, digests[run_id], each.input_digest, before)
            known[number] = run_id
        elif (holder := holders.get((each.queue, each.deduplication_id or ""))) is not None:
            if on_duplicate == "raise":
                given = f"the deduplication id {each.deduplication_id!r} in the queue {each.queue!r}"
                raise RunDuplicatedError(f"The run {holder!r} has {given}.", run_id=holder)
            known[number] = holder
    return known


def _refuse_partition(queued: QueuedRun) -> None:
    if queued.partition_key is None:
        raise InvalidInputError(
            f"The queue {queued.queue!r} is partitioned; the run {queued.request.run_id!r} has no partition_key.",
            hint="Pass partition_key=, such as the name of the customer.",
        )
    raise InvalidInputError(
        f"The queue {queued.queue!r} is not partitioned; the run {queued.request.run_id!r} has the partition_key "
        f"{queued.partition_key!r}.",
        hint=f"Leave it out, or make the queue with `timestep queues create {queued.queue} --partition-concurrency N`.",
    )


def _get(connector: Connector, name: str) -> DbosQueue:
    found = connector.dbos.retrieve_queue(name)
    if found is None:
        raise QueueNotFoundError(f"There is no queue {name!r}.")
    return found


def _set_paused(connector: Connector, name: str, is_paused: bool) -> bool:
    if name == SEGMENT_QUEUE:
        check_queue_name(name)
    queue = _get(connector, name)
    if _is_paused(queue) == is_paused:
        return False
    queue.set_limiter(_limiter(_limits_of(queue), is_paused=is_paused))
    return True


def _limiter(limits: QueueLimits, *, is_paused: bool) -> Any:
    limit = -(limits.rate_limit or 0) if is_paused else limits.rate_limit
    return None if limit is None else {"limit": limit, "period": limits.rate_period_seconds}


def _as_read(queue: DbosQueue) -> DbosQueue:
    """Return a queue as it was read: without this each look at a limit is a query."""
    seen = copy.copy(queue)
    seen.database_backed_queue = False
    return seen


def _is_paused(queue: DbosQueue | None) -> bool:
    limiter = _as_read(queue).limiter if queue is not None else None
    return limiter is not None and limiter["limit"] <= 0


def _is_partitioned(queue: DbosQueue) -> bool:
    queue = _as_read(queue)
    limits = queue.partition_concurrency, queue.partition_worker_concurrency, queue.partition_limiter
    return any(limit is not None for limit in limits)


def _limits_of(queue: DbosQueue) -> QueueLimits:
    queue = _as_read(queue)
    limiter = queue.limiter
    return QueueLimits(
        global_concurrency=queue.global_concurrency,
        worker_concurrency=queue.worker_concurrency,
        partition_concurrency=queue.partition_concurrency,
        rate_limit=abs(limiter["limit"]) or None if limiter is not None else None,
        rate_period_seconds=limiter["period"] if limiter is not None else QueueLimits.rate_period_seconds,
        polling_interval_seconds=queue.polling_interval_sec,
    )


def _queue_of(queue: DbosQueue, counts: dict[str, Any]) -> Queue:
    return Queue(name=queue.name, limits=_limits_of(queue), is_paused=_is_paused(queue), **counts)


def _differences(before: QueueLimits, after: QueueLimits) -> list[str]:
    pairs = [
        (field.name, getattr(before, field.name), getattr(after, field.name)) for field in dataclasses.fields(before)
    ]
    return [f"{name} is {old}, not {new}" for name, old, new in pairs if old != new]


def _is_delay(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST_DELAY_SECONDS


def _text(value: object, name: str) -> str | None:
    """Return an id of one word or more unchanged."""
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable() or value != value.strip():
        raise InvalidInputError(f"{name} is 1 to 200 printable characters without spaces at the ends, not {value!r}.")
    return value
