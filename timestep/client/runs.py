"""Every verb on runs, for programs that do not execute them: over DBOS's client and the store, launching nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa
from dbos import SetWorkflowID, StepInfo
from sqlalchemy.exc import IntegrityError

from timestep.client.connector import Connector
from timestep.client.readable import readable
from timestep.client.serializer import encode_error
from timestep.errors import RunInputMismatchError, RunNotFoundError, RunStateError
from timestep.ids import (
    SEGMENT_QUEUE,
    STEP_CLOSE_STREAM,
    copy_id,
    kind_of_step,
    segment_id,
)
from timestep.records import Run, RunLimits, RunRequest, Step, TokenUsage
from timestep.store import runs as store
from timestep.store.json_text import dump_json
from timestep.store.queues import SessionPlace, ended_among, find_place
from timestep.store.run_states import latest_of_run
from timestep.store.runs import StoredRun
from timestep.store.segments import enqueue_segment
from timestep.words import CANCELLED, MODEL_TURN, PARENT_CANCELLED, SESSION_WRITE, TIMEOUT, RunStatus

POLL_SECONDS = 0.1
SETTLED: tuple[RunStatus, ...] = ("succeeded", "failed", "cancelled", "interrupted")


def check_same_input(
    request: RunRequest, known: str | None, digest: str, stored: RunRequest | None, *, hint: str | None = None
) -> None:
    """Refuse a run's id that is known with another input, by the digests of both; `stored` is what it is known with.

    Raises:
        RunInputMismatchError: it is.
    """
    if known != digest:
        before, now = (_same(each) for each in (stored or request, request))
        others = [name for name in before | now if _canonical(before.get(name)) != _canonical(now.get(name))]
        *most, last = others or ["agent", "input", "session or context"]
        what = f"{', '.join(most)} and {last}" if others and most else ", ".join([*most, last])
        raise RunInputMismatchError(f"The run {request.run_id!r} is known with another {what}.", hint=hint)


def digest_of(request: RunRequest) -> str:
    """Return the SHA-256 by which the same id is known to bring the same work: agent, input, session, context."""
    return hashlib.sha256(_canonical(_same(request)).encode()).hexdigest()


def _same(request: RunRequest) -> dict[str, Any]:
    return {
        "agent": request.agent,
        "input": request.input_items,
        "session": request.session_id,
        "context": request.context,
    } | {name: value for name in store.AT_PROVIDER if (value := getattr(request, name))}


def _canonical(value: Any) -> str:
    return dump_json(_sorted(value))


def request_fields(request: RunRequest) -> dict[str, Any]:
    """Return a request without its run id as JSON, for a workflow's arguments."""
    fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    fields |= {"run_config": dict(request.run_config), "limits": store.limits_json(request.limits)}
    unset = [name for name in (*store.AT_PROVIDER, "code") if not fields[name]]
    for name in ("run_id", *unset):  # executors of an older release take a request without them
        del fields[name]
    return fields


def request_of(run_id: str, fields: Mapping[str, Any]) -> RunRequest:
    """Return the request of its JSON."""
    given: dict[str, Any] = {**fields}
    if given.get("limits"):
        given["limits"] = RunLimits(**given["limits"])
    return RunRequest(run_id=run_id, **given)


def context_of_run(connector: Connector, run_id: str) -> Any:
    """Return the context of a run as plain JSON: after its last segment that has ended, else as the run was given it.

    Raises:
        RunNotFoundError: there is no such run.
    """
    snapshot = connector.database.run_sync(latest_of_run, run_id)
    if snapshot is not None:
        return readable((snapshot.state.get("context") or {}).get("context"))
    return readable(connector.database.run_sync(store.get_stored_run, run_id).request.context)


def check_same(connector: Connector, request: RunRequest) -> None:
    """Refuse an id that is known with another input; a new one is fine.

    Raises:
        RunInputMismatchError: it is.
    """
    stored = connector.database.run_sync(store.find_stored_run, request.run_id)
    if stored is not None:
        check_same_input(request, stored.input_digest, digest_of(request), stored.request)


def get_run(connector: Connector, run_id: str) -> Run:
    """Return a run.

    Raises:
        RunNotFoundError: there is no such run.
    """
    return connector.database.run_sync(store.get_stored_run, run_id).run


async def read_run(connector: Connector, run_id: str) -> Run:
    """Return a run as `get_run` does, and wait while the database is away."""
    return (await connector.database.run_until_done(store.get_stored_run, run_id)).run


async def wait_run(connector: Connector, run_id: str, *, until: Collection[RunStatus] = SETTLED) -> StoredRun:
    """Return a run when its status is in `until`: it has ended, or waits for a person, when absent.

    Raises:
        RunNotFoundError: there is no such run.
    """
    while True:
        stored = await connector.database.run_until_done(store.find_stored_run, run_id)
        if stored is None:
            raise RunNotFoundError(f"There is no run {run_id!r}.")
        if stored.run.status in until:
            return stored
        await asyncio.sleep(POLL_SECONDS)


def cancel_run(connector: Connector, run_id: str, *, reason: str = CANCELLED, children: bool = False) -> Run:
    """Cancel a run: queued and waiting ones at once, a running one at its next step; return it as it was.

    With `children` also the runs that it has started, and theirs, all in one transaction; else they go on.

    What it had stays: the journal of its segment, from which `resume_run` goes on. May be repeated.

    Raises:
        RunNotFoundError: there is no such run.
        RunStateError: it has ended.
    """
    before, below = connector.database.run_sync(_mark_cancelled, run_id, reason=reason, children=children)
    stored = before or connector.database.run_sync(store.get_stored_run, run_id)
    if before is None and stored.run.status != "cancelled":
        raise RunStateError(
            f"The run {run_id!r} has {stored.run.status} and cannot be cancelled.",
            hint="Look at it with `timestep runs show`.",
        )
    segments = [segment_id(each.run.run_id, each.run.segment) for each in (stored, *below)]
    connector.dbos.cancel_workflows([*segments, *map(copy_id, segments)])
    return stored.run


def _mark_cancelled(
    connection: sa.Connection, run_id: str, *, reason: str, children: bool
) -> tuple[StoredRun | None, list[StoredRun]]:
    before = store.mark_cancelled(connection, run_id, reason=reason)
    below = store.unfinished_children(connection, run_id) if children else []
    marked = [store.mark_cancelled(connection, each, reason=PARENT_CANCELLED) for each in below]
    return before, [each for each in marked if each is not None]


def resume_run(connector: Connector, run_id: str, *, max_turns: int | None = None, is_bound: bool = False) -> Run:
    """Let a run go on that was cancelled, reached its time limit, is parked or failed; return it as it was.

    A cancelled or parked run goes on in the same segment, from its last finished step; one that was parked before its
    first step in a new one, on the newest application version. A failed run gets a new segment with a copy of the
    journal before the failure. The runs that were cancelled with a run go on with it. `max_turns` raises the limit of
    a run that has reached it. `is_bound`: the workflow of a parked run is bound to a version that can take it, and
    goes on as it is.

    Raises:
        RunNotFoundError: there is no such run.
        RunStateError: it is running, queued, has succeeded, or waits for a decision.
    """
    stored = connector.database.run_sync(store.get_stored_run, run_id)
    run = stored.run
    is_parked = run.status == "interrupted" and stored.closed_segment < run.segment
    current = segment_id(run_id, run.segment)
    if run.status == "cancelled":
        # The children come first: a tool of this run that waits for one must find it resumed.
        for child in connector.database.run_sync(store.cancelled_children, run_id):
            resume_run(connector, child)
    if run.status == "cancelled" and stored.closed_segment >= run.segment:  # it waited for a decision, and does again
        if not connector.database.run_sync(store.mark_waiting, run_id):
            raise _changed(run_id)
    elif is_parked and not is_bound and not connector.dbos.list_workflow_steps(current):
        # Nothing holds it to its version.
        _fork(connector, stored, max_turns=max_turns)
    elif run.status == "cancelled" or is_parked:
        connector.database.run_sync(
            store.prepare_resume, run_id, restart_clock=run.reason == TIMEOUT, max_turns=max_turns
        )
        if not connector.database.run_sync(store.mark_queued, run_id, was=(run.status,)):
            raise _changed(run_id)
        _resume_workflow(connector, stored)
    elif run.status == "failed" and connector.database.run_sync(store.has_expired, stored):
        if not connector.database.run_sync(store.ask_again, run_id):
            raise _changed(run_id)
    elif run.status == "failed":
        _fork(connector, stored, max_turns=max_turns)
    else:
        hint = "Decide its open approvals; it goes on by itself." if run.status == "interrupted" else None
        raise RunStateError(f"The run {run_id!r} is {run.status} and cannot be resumed.", hint=hint)
    return run


def _resume_workflow(connector: Connector, stored: StoredRun) -> None:
    """Resume the workflow of a run that is queued again; executors do it when the run has its session, if it waits."""
    run_id, number = stored.run.run_id, stored.run.segment
    current = segment_id(run_id, number)
    is_there = connector.dbos.list_workflows(workflow_ids=[current], load_input=False, load_output=False)
    if not is_there and number == 1:  # it was cancelled before it had its session
        connector.database.run_sync(enqueue_segment, run_id, number)
        return
    place = connector.database.run_sync(find_place, run_id) if stored.session_place is not None else None
    if place is None or not place.is_waiting:
        connector.dbos.resume_workflow(current if is_there else copy_id(current))


def _fork(connector: Connector, stored: StoredRun, *, max_turns: int | None) -> None:
    """Start a new segment from a copy of the journal of the last one, without the steps that failed at its end."""
    run = stored.run
    connector.database.run_sync(
        store.prepare_resume, run.run_id, restart_clock=run.reason == TIMEOUT, max_turns=max_turns
    )
    if stored.session_place is not None:
        connector.database.run_sync(_queue_copy, stored)
        return
    # The copy comes first: a crash before the row is marked leaves a segment that starts all the same.
    copy_journal(connector, run.run_id, run.segment + 1)
    connector.database.run_sync(store.mark_queued, run.run_id, was=(run.status,), segment=run.segment + 1)


def _queue_copy(connection: sa.Connection, stored: StoredRun) -> None:
    """Queue a new segment that starts from a copy, now or when it is the run's turn in its session."""
    run = stored.run
    if store.mark_queued(connection, run.run_id, was=(run.status,), segment=run.segment + 1):
        enqueue_segment(connection, run.run_id, run.segment + 1, is_copy=True)


def copy_journal(connector: Connector, run_id: str, number: int) -> str:
    """Enqueue segment `number` with a copy of the journal before it, and return its id. May be repeated.

    A failed step at the very end is left out: it is what the new segment tries again. So is what comes after it, the
    write of a foreign session and the end of the stream.
    """
    source, following = segment_id(run_id, number - 1), segment_id(run_id, number)
    after = (SESSION_WRITE, STEP_CLOSE_STREAM)
    steps = [step for step in connector.dbos.list_workflow_steps(source) if step["function_name"] not in after]
    start = 1
    if steps:
        start = steps[-1]["function_id"] if _has_failed(steps[-1]) else steps[-1]["function_id"] + 1
    with SetWorkflowID(following), contextlib.suppress(IntegrityError):  # it may be there from an earlier try
        connector.dbos.fork_workflow(source, start, queue_name=SEGMENT_QUEUE)
    return following


def ends_with_error(connector: Connector, workflow_id: str) -> bool:
    """Whether the last recorded step of a segment has failed."""
    steps = connector.dbos.list_workflow_steps(workflow_id)
    return bool(steps) and _has_failed(steps[-1])


def list_steps(connector: Connector, run: Run) -> list[Step]:
    """Return the recorded steps of a run, segment by segment, in the order of their ids."""
    return [
        step for segment in range(1, run.segment + 1) for step in list_segment_steps(connector, run.run_id, segment)
    ]


def list_segment_steps(connector: Connector, run_id: str, segment: int) -> list[Step]:
    """Return the recorded steps of one segment, those included that were copied from the one before."""
    return [_step(segment, info) for info in connector.dbos.list_workflow_steps(segment_id(run_id, segment))]


def find_runs(
    connector: Connector,
    *,
    statuses: Sequence[RunStatus] = (),
    agent: str | None = None,
    session_id: str | None = None,
    id_prefix: str | None = None,
    limit: int = 50,
) -> list[Run]:
    """Return runs, the newest first."""
    return connector.database.run_sync(
        store.list_runs, statuses=statuses, agent=agent, session_id=session_id, id_prefix=id_prefix, limit=limit
    )


def list_ended(connector: Connector, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return those of these runs that have ended or wait for a person: id, status, reason, output and error."""
    return connector.database.run_sync(ended_among, run_ids)


def find_session_place(connector: Connector, run_id: str) -> SessionPlace | None:
    """Return a run's place among those of its session; None when it neither has the session nor waits for it."""
    return connector.database.run_sync(find_place, run_id)


def full_run_id(connector: Connector, text: str) -> str:
    """Return the id of the one run whose id is `text` or begins with it.

    Raises:
        RunNotFoundError: there is none, or more than one.
    """
    return connector.database.run_sync(named_run, text)


def named_run(connection: sa.Connection, text: str) -> str:
    """Return the id of the one run whose id is `text` or begins with it; see `full_run_id`."""
    if store.find_stored_run(connection, text) is not None:
        return text
    found = [run.run_id for run in store.list_runs(connection, id_prefix=text, limit=4)] if text else []
    if not found:
        raise RunNotFoundError(f"There is no run {text!r}.")
    if len(found) > 1:
        names = ", ".join(found[:3])
        raise RunNotFoundError(f"More than one run begins with {text!r}: {names} ...", hint="Type more of the id.")
    return found[0]


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: _sorted(fields[key]) for key in sorted(fields)}
    if isinstance(value, list):
        return [_sorted(item) for item in cast("list[Any]", value)]
    return value


def _has_failed(step: StepInfo) -> bool:
    return isinstance(step["output"], dict) and "error" in step["output"]


def _step(segment: int, info: StepInfo) -> Step:
    output = info["output"]
    envelope: dict[str, Any] = cast("dict[str, Any]", output) if isinstance(output, dict) else {"ok": output}
    started = envelope.get("started_at") or (info["started_at_epoch_ms"] or 0) / 1000
    finished = envelope.get("finished_at") or (info["completed_at_epoch_ms"] or 0) / 1000
    if "seconds" in envelope:
        finished = started + envelope["seconds"]
    error = envelope.get("error") or (encode_error(info["error"]) if info["error"] is not None else None)
    result, kind = envelope.get("ok"), kind_of_step(info["function_name"])
    return Step(
        segment=segment,
        step_id=info["function_id"],
        name=info["function_name"],
        kind=kind,
        started_at=datetime.fromtimestamp(started, UTC) if started else None,
        finished_at=datetime.fromtimestamp(finished, UTC) if finished else None,
        result=result,
        error=error,
        attempt=envelope.get("attempt", 1),
        usage=_usage(result) if kind == MODEL_TURN else None,
        model=envelope.get("model") if kind == MODEL_TURN else None,
    )


def _usage(response: Any) -> TokenUsage | None:
    used = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(used, dict):
        return None
    given = cast("dict[str, Any]", used)
    return TokenUsage(
        requests=given.get("requests") or 1,
        input_tokens=given.get("input_tokens") or 0,
        cached_tokens=(given.get("input_tokens_details") or {}).get("cached_tokens") or 0,
        output_tokens=given.get("output_tokens") or 0,
        reasoning_tokens=(given.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _changed(run_id: str) -> RunStateError:
    return RunStateError(f"The run {run_id!r} changed at this moment.", hint="Look at it, then try again.")


__all__ = [
    "cancel_run", "digest_of", "find_runs", "full_run_id", "get_run", "list_steps", "resume_run", "wait_run",
]  # fmt: skip
