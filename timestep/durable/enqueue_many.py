"""Queue thousands of runs in few transactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from agents import Agent, RunState

from timestep import home_loop
from timestep.client.queues import OnDuplicate, enqueue_runs, queued_run
from timestep.durable.handle import RunHandle
from timestep.durable.process.engine import engine, ensure_engine
from timestep.durable.process.threads import run_in_thread
from timestep.durable.segment.request import build_request
from timestep.durable.start import entry_of, given_input
from timestep.durable.states.origin import Input
from timestep.errors import InvalidInputError, NotDurableError, TimestepError
from timestep.records import QueuedRun
from timestep.settings import current_settings

_OF_REQUEST = (
    "session", "session_id", "workflow_id", "context", "max_turns", "run_config", "timeout_seconds", "stream", "model",
    "limits",
)  # fmt: skip
_OF_QUEUE = ("queue_name", "one_at_a_time", "priority", "deduplication_id", "delay_seconds", "partition_key")
PARAMETERS = ("agent", "input_items", *_OF_REQUEST, *_OF_QUEUE)
"""What a run of `queue_many` may have: parameters of `queue_agent_workflow`."""


def queue_many(
    runs: Iterable[Input | Mapping[str, Any]],
    agent: Agent[Any] | str | None = None,
    *,
    on_duplicate: OnDuplicate = "raise",
    **shared: Any,
) -> list[RunHandle]:
    """Queue many runs and return their handles in the same order; all of them are stored when this returns.

    500 runs are stored in one transaction. All are checked before the first is stored. Runs with a `workflow_id` are
    stored once, however often the call is repeated; without one each call queues new ones.

    Args:
        runs: Inputs, as text or as a list of items, or mappings of parameters of `queue_agent_workflow`, such as
            `{"input_items": "Hello", "workflow_id": "mail-7", "session_id": "ann", "priority": 2}`.
        agent: The agent of the runs that name none, or the name of a registered one.
        on_duplicate: As in `queue_agent_workflow`.
        shared: Parameters of `queue_agent_workflow` for all runs that do not have them.

    Raises:
        InvalidInputError: a run is malformed or a RunState; the message names its number, from 1. Nothing is stored.
        RunInputMismatchError: an id is known with another input. Runs before it may be stored.
        RunDuplicatedError: another run has a deduplication id. Runs before it may be stored.
    """
    home_loop.enter()
    checked = [_queued(run, number, {"agent": agent, **shared}) for number, run in enumerate(runs, start=1)]
    if not checked:
        return []
    ensure_engine()
    ids = run_in_thread(lambda: enqueue_runs(engine().connector, checked, on_duplicate=on_duplicate))
    return [RunHandle(run_id) for run_id in ids]


def _queued(run: Any, number: int, shared: Mapping[str, Any]) -> QueuedRun:
    own: Mapping[str, Any] = cast("Mapping[str, Any]", run) if isinstance(run, Mapping) else {"input_items": run}
    parameters = {**shared, **own}
    try:
        if unknown := sorted(str(name) for name in parameters if name not in PARAMETERS):
            raise InvalidInputError(f"It has no parameter {unknown[0]!r}.", hint=f"There are {', '.join(PARAMETERS)}.")
        if isinstance(parameters.get("input_items"), RunState):
            raise NotDurableError(
                "Its input is a RunState.", hint="Queue a RunState by itself: queue_agent_workflow(agent, state)."
            )
        request = build_request(
            entry_of(parameters.get("agent")),
            given_input(parameters.get("input_items")),
            **{name: parameters[name] for name in _OF_REQUEST if name in parameters},
        )
        options = {name: parameters[name] for name in _OF_QUEUE if name in parameters}
        return queued_run(
            request, application=current_settings().name, queue=options.pop("queue_name", None), **options
        )
    except TimestepError as error:
        raise type(error)(f"Run {number} of the batch: {error}", hint=error.hint) from error
