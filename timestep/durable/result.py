"""What the caller of a durable run gets, made from the run as it just ended or as it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agents import RunResult, RunResultStreaming, RunState
from agents.usage import Usage

from timestep.client.events import stored_events
from timestep.client.readable import readable
from timestep.client.serializer import decode_error
from timestep.durable.journal.child_runs import with_parent
from timestep.durable.process.agent_definition import reachable_agents
from timestep.durable.process.engine import engine, is_engine_launched
from timestep.durable.process.registered_agents import RegisteredAgent
from timestep.durable.seams import run_state
from timestep.durable.segment.outcome import Outcome
from timestep.durable.states.origin import Origin, with_origin
from timestep.durable.states.output import load_output
from timestep.durable.states.snapshots import load_snapshot
from timestep.durable.values.keeping import is_structure, restore
from timestep.errors import (
    AgentNotRegisteredError,
    InterruptionException,
    JournalFormatError,
    RunCancelledError,
    RunFailedError,
    RunTimedOutError,
    UnsupportedError,
)
from timestep.records import Approval
from timestep.run_state.envelope import Snapshot
from timestep.store.runs import StoredRun
from timestep.words import PARENT_CANCELLED, TIMEOUT, RunStatus


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class DurableRunResult:
    """The result of a durable run.

    The same for a run that just ended and for one that is read again. Fields can be read as attributes and as
    `result["output"]`. `status` is `succeeded` or `interrupted`; a failed or cancelled run raises instead.
    `interruptions` are the SDK's, to decide on the state; of a run that waits for a limit or for an unknown outcome
    they are `Approval`s. `segment` is the one that ended with this result. `context` is the run's context after it;
    None where the run waits in the middle of a turn.
    """

    run_id: str
    status: RunStatus
    final_output: Any
    interruptions: list[Any]
    new_items: list[Any]
    usage: Usage
    last_agent: Any = None
    segment: int = 1
    context: Any = None
    state: RunState[Any] | None = None
    ended: RunResult | RunResultStreaming | None = None

    def __repr__(self) -> str:
        return f"DurableRunResult(run_id={self.run_id!r}, status={self.status!r}, output={self.final_output!r})"

    @property
    def output(self) -> Any:
        """The final output."""
        return self.final_output

    @property
    def has_state(self) -> bool:
        """Whether there is a RunState: a run that is halted between two states has none."""
        return self.state is not None or self.ended is not None

    def to_state(self) -> RunState[Any]:
        """Return the RunState at the end of the run: to save, to decide about interruptions, to go on from.

        Raises:
            UnsupportedError: the run waits for a limit or for an unknown outcome, in the middle of a turn.
            AgentNotRegisteredError: this process does not know the agent, so it cannot build its state.
        """
        if self.state is None and self.ended is not None:
            self.state = self.ended.to_state()
        if self.state is not None:
            is_final = self.status == "succeeded"
            origin = Origin(run_id=self.run_id, segment=self.segment, is_final=is_final, output=self.final_output)
            return with_origin(self.state, origin)
        if self.status == "interrupted":
            raise UnsupportedError(
                f"The run {self.run_id!r} waits in the middle of a turn, where the SDK has no state.",
                hint="Decide with `settle(...)`, `raise_limits(...)` or `reject(...)`; it goes on by itself.",
            )
        raise AgentNotRegisteredError(
            f"The state of run {self.run_id!r} cannot be built here: its agent is not registered.",
            hint="Call `register_agents(...)` before reading the result.",
        )

    def to_input_list(self) -> list[Any]:
        """Return the new items as input items of a next run."""
        return [item.to_input_item() for item in self.new_items]

    async def stream_events(self) -> AsyncGenerator[dict[str, Any]]:
        """Yield the stored events of the run, up to its end or its interruption; `stream_run` follows one that runs.

        Those of a run without `stream=True` are its recorded steps.
        """
        own: dict[str, Any] = {}
        if is_engine_launched():
            own = {"database": engine().database, "client": engine().client}
        async for event in stored_events(self.run_id, **own):
            yield event

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name == "output" or name in {field.name for field in dataclasses.fields(self)}


def result_of_outcome(outcome: Outcome, *, run_id: str, segment: int) -> DurableRunResult:
    """Return the result of a run that ended in this process.

    Raises:
        Exception: the run's own error, unchanged.
    """
    if outcome.error is not None:
        raise outcome.error
    result = outcome.result
    assert result is not None
    return DurableRunResult(
        run_id=run_id,
        status="interrupted" if result.interruptions else "succeeded",
        final_output=result.final_output,
        interruptions=list(result.interruptions),
        new_items=list(result.new_items),
        usage=result.context_wrapper.usage,
        last_agent=result.last_agent,
        segment=segment,
        context=result.context_wrapper.context,
        ended=result,
    )


async def result_of_stored(
    stored: StoredRun,
    snapshot: Snapshot | None,
    entry: RegisteredAgent | None,
    *,
    segment: int,
    asked: Sequence[Approval] = (),
) -> DurableRunResult:
    """Return the result of a run as it is stored, with what it `asked` at the end of the segment.

    Raises:
        Exception: the run's own error, rebuilt.
        RunCancelledError: the run was cancelled.
        RunTimedOutError: it reached its time limit.
    """
    run = stored.run
    raise_end(stored)
    ended = snapshot if snapshot is not None and snapshot.segment == segment else None
    state = await load_snapshot(entry, ended) if ended is not None and entry is not None else None
    last = None
    if entry is not None and stored.last_agent is not None:
        last = next((agent for agent in reachable_agents(entry.agent) if agent.name == stored.last_agent), None)
    usage = Usage(
        requests=run.usage.requests,
        input_tokens=run.usage.input_tokens,
        output_tokens=run.usage.output_tokens,
        total_tokens=run.usage.input_tokens + run.usage.output_tokens,
    )
    return DurableRunResult(
        run_id=run.run_id,
        status=run.status,
        final_output=_output_of(stored, ended, last),
        interruptions=state.get_interruptions() if state is not None else list(asked),
        new_items=run_state.items_of(state) if state is not None else [],
        usage=usage,
        last_agent=last,
        segment=segment,
        context=run_state.context_of(state) if state is not None else _context_of(ended),
        state=state,
    )


def _output_of(stored: StoredRun, ended: Snapshot | None, last: Any) -> Any:
    """Return the final output of a stored run: the one that its last snapshot holds whole, else that of its row."""
    if ended is not None and is_structure(ended.output):
        try:
            return restore(ended.output)
        except JournalFormatError:
            if last is not None:
                raise
    return load_output(stored.run.output, last.output_type if last is not None else None)


def _context_of(ended: Snapshot | None) -> Any:
    """Return the context at the end of a run whose agent is not registered here: as plain JSON."""
    return readable(ended.state["context"].get("context")) if ended is not None else None


def interruption_of(run_id: str | None, interruptions: Sequence[Any]) -> InterruptionException:
    """Return the exception for a run that waits for a person."""
    tools = {str(getattr(each, "tool_name", None) or getattr(each, "tool", "")) for each in interruptions}
    names = ", ".join(sorted(tools - {""}))
    what = f"The run {run_id!r}" if run_id else "The run"
    return InterruptionException(
        f"{what} waits for a person: {names or 'see its reason'}.", run_id=run_id or "", interruptions=interruptions
    )


def raise_end(stored: StoredRun) -> None:
    """Raise what a failed or cancelled run ended with; do nothing for the others."""
    run = stored.run
    if run.status == "failed":
        if run.error is None:
            raise RunFailedError(f"The run {run.run_id!r} failed: {run.reason}.")
        raise decode_error(run.error)
    if run.status == "cancelled":
        if run.reason == TIMEOUT:
            limit = stored.timeout_seconds
            raise RunTimedOutError(f"The run {run.run_id!r} reached its limit of {limit:g} s.", run_id=run.run_id)
        error = RunCancelledError(f"The run {run.run_id!r} was cancelled ({run.reason}).", run_id=run.run_id)
        raise with_parent(error, stored.request.parent_run_id) if run.reason == PARENT_CANCELLED else error
