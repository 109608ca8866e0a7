"""`Client`: every verb on runs, queues and approvals for programs that execute nothing; no SDK is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from timestep.client import approvals, executors, queues, runs, schedules, sessions, usage
from timestep.client.connector import Connector
from timestep.client.events import stream_events
from timestep.client.handle import ClientRunHandle
from timestep.client.requests import new_request
from timestep.records import (
    Approval,
    CatchUp,
    Executor,
    Queue,
    QueueLimits,
    Run,
    RunLimits,
    RunRequest,
    Schedule,
    Step,
    StoredSession,
    StrandedRun,
    UsageKey,
    UsageTotal,
)
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database, open_other_database
from timestep.words import FINISHED, RunStatus

P = ParamSpec("P")
T = TypeVar("T")


class Client:
    """Queues runs, looks at them and decides about them, from any process that reaches the database.

    Also an asynchronous context manager, which closes it. A method does what the function of its name does in
    `timestep.client`, and raises the same.
    """

    def __init__(self, connection_string: str | None = None) -> None:
        """Connect to nothing yet; without `connection_string` the database is that of the process."""
        self._connection_string = connection_string
        self._own: Database | None = None
        self._connector: Connector | None = None
        self._opening = asyncio.Lock()

    async def queue_run(
        self,
        agent: str,
        input_items: str | Sequence[Mapping[str, Any]],
        *,
        session_id: str | None = None,
        run_id: str | None = None,
        queue: str | None = None,
        context: Any = None,
        model: str | None = None,
        limits: RunLimits | None = None,
        stream: bool = False,
        priority: int | None = None,
        deduplication_id: str | None = None,
        delay_seconds: float | None = None,
    ) -> ClientRunHandle:
        """Queue a run of the agent that executors have under this name; it is stored when this returns.

        Args:
            session_id: The conversation; its queued runs run one after the other.
            run_id: The run's id and idempotency key; a fresh one when absent, so pass one where the call may be
                repeated.
            queue: Made on first use; the default one starts at most 50 runs in 60 s.
            context: JSON; the executor makes of it the class that the agent is registered with, if there is one.
            model: Name of the model of this run, instead of those of its agents.
            limits: What the run may use.
            stream: Write live events to the run's stream; else its events are its recorded steps.
            priority: From 1, the highest, on. A run without it starts before all others.
            deduplication_id: In one queue no two runs have it that have not ended.
            delay_seconds: Start no earlier than this many seconds from now.

        Raises:
            InvalidInputError: a value is malformed.
            NotDurableError: the context is not JSON.
            RunInputMismatchError: the id is known with another input.
            RunDuplicatedError: another run has the deduplication id; its `run_id` says which.
        """
        request = new_request(
            agent, input_items, session_id=session_id, run_id=run_id, context=context, model=model, limits=limits,
            stream=stream,
        )  # fmt: skip
        known = await self._run(
            queues.queue_run, request, queue=queue, priority=priority, deduplication_id=deduplication_id,
            delay_seconds=delay_seconds,
        )  # fmt: skip
        return ClientRunHandle(run_id=known, connect=self._connect)

    async def get_run(self, run_id: str) -> Run:
        """Return a run, or raise `RunNotFoundError`."""
        return await self._run(runs.get_run, run_id)

    async def list_runs(
        self,
        *,
        statuses: Sequence[RunStatus] = (),
        agent: str | None = None,
        session_id: str | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """Return runs, the newest first."""
        return await self._run(runs.find_runs, statuses=statuses, agent=agent, session_id=session_id, limit=limit)

    async def list_stranded_runs(self, *, limit: int = 100) -> list[StrandedRun]:
        """Return the runs that no live executor can take, with what is missing and what mends it."""
        return await self._run(executors.list_stranded_runs, limit=limit)

    async def list_executors(self) -> list[Executor]:
        """Return the processes that execute runs, the oldest first; those that are gone until they are taken over."""
        return await self._run(executors.list_executors)

    async def list_steps(self, run_id: str) -> list[Step]:
        """Return the recorded steps of a run, segment by segment."""
        return await self._run(runs.list_steps, await self.get_run(run_id))

    async def wait_run(self, run_id: str) -> Run:
        """Return a run when it has ended, over all of its segments and interruptions."""
        return (await runs.wait_run(await self._connect(), run_id, until=FINISHED)).run

    async def cancel_run(self, run_id: str, *, children: bool = False) -> Run:
        """Cancel a run and return it as it was; with `children` also the runs that it has started, and theirs."""
        return await self._run(runs.cancel_run, run_id, children=children)

    async def resume_run(self, run_id: str, *, max_turns: int | None = None) -> Run:
        """Let a cancelled, parked or failed run go on and return it as it was."""
        return await self._run(runs.resume_run, run_id, max_turns=max_turns)

    async def stream_run(
        self, run_id: str, from_offset: int = 0, *, raw: bool = False
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a run from an offset on; see `timestep.stream_run`."""
        async with aclosing(stream_events(await self._connect(), run_id, from_offset, raw=raw)) as events:
            async for event in events:
                yield event

    async def list_usage(self, *, by: UsageKey = "model", since: datetime | None = None) -> list[UsageTotal]:
        """Return tokens and cost of the model calls that finished at `since` or later, by what they have in common."""
        return await self._run(usage.list_usage, by=by, since=since)

    async def list_queues(self) -> list[Queue]:
        """Return the queues in the order of their names, with what is in them."""
        return await self._run(queues.list_queues)

    async def get_queue(self, name: str) -> Queue:
        """Return a queue with what is in it, or raise `QueueNotFoundError`."""
        return await self._run(queues.get_queue, name)

    async def create_queue(
        self, name: str, limits: QueueLimits | None = None, *, replace: bool = False
    ) -> queues.Change:
        """Make a queue, or with `replace` give one that is there other limits; say which."""
        return await self._run(queues.create_queue, name, limits or QueueLimits(), replace=replace)

    async def pause_queue(self, name: str) -> bool:
        """Let no run of a queue start any more; those that run go on. False when it was paused before."""
        return await self._run(queues.pause_queue, name)

    async def resume_queue(self, name: str) -> bool:
        """Let the runs of a paused queue start again. False when it was not paused."""
        return await self._run(queues.resume_queue, name)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue in which nothing waits, or raise `QueueNotEmptyError`."""
        await self._run(queues.delete_queue, name)

    async def list_approvals(
        self, run_id: str | None = None, *, is_waiting: bool = True, limit: int = 100
    ) -> list[Approval]:
        """Return what runs wait for, the oldest first; with `is_waiting` false also what was decided."""
        return await self._run(approvals.list_approvals, run_id, is_waiting=is_waiting, limit=limit)

    async def get_approval(self, approval_id: str) -> Approval:
        """Return one approval, or raise `ApprovalNotFoundError`."""
        return await self._run(approvals.get_approval, approval_id)

    async def approve(
        self,
        run_id: str,
        call_id: str | None = None,
        *,
        by: str,
        always: bool = False,
        approval_id: str | None = None,
        arguments_digest: str | None = None,
    ) -> Approval:
        """Let a call that waits run; see `timestep.approve`."""
        made = approvals.approval(by=by, always=always, arguments_digest=arguments_digest)
        return await self._run(approvals.decide_in_run, made, run_id, call_id, approval_id)

    async def reject(
        self,
        run_id: str,
        call_id: str | None = None,
        *,
        by: str,
        reason: str | None = None,
        always: bool = False,
        approval_id: str | None = None,
        arguments_digest: str | None = None,
    ) -> Approval:
        """Refuse what waits; see `timestep.reject`."""
        made = approvals.rejection(by=by, reason=reason, always=always, arguments_digest=arguments_digest)
        return await self._run(approvals.decide_in_run, made, run_id, call_id, approval_id)

    async def answer(
        self, run_id: str, text: str, call_id: str | None = None, *, by: str, approval_id: str | None = None
    ) -> Approval:
        """Answer a question of the model; see `timestep.answer`."""
        made = approvals.answer_to_question(text, by=by)
        return await self._run(approvals.decide_in_run, made, run_id, call_id, approval_id)

    async def settle(
        self,
        run_id: str,
        call_id: str | None = None,
        *,
        by: str,
        outcome: approvals.Outcome,
        result: Any = None,
        approval_id: str | None = None,
    ) -> Approval:
        """Say what became of a call whose outcome is unknown; see `timestep.settle`."""
        made = approvals.settlement(outcome, by=by, result=result)
        return await self._run(approvals.decide_in_run, made, run_id, call_id, approval_id)

    async def raise_limits(
        self, run_id: str, limits: RunLimits, *, by: str, approval_id: str | None = None
    ) -> Approval:
        """Let a run that reached a limit go on; see `timestep.raise_limits`."""
        made = approvals.higher_limits(limits, by=by)
        return await self._run(approvals.decide_in_run, made, run_id, None, approval_id)

    async def list_sessions(self, *, limit: int = 50) -> list[StoredSession]:
        """Return the conversations that have items, those first that were changed last."""
        return await self._run(sessions.list_sessions, limit=limit)

    async def get_session(self, session_id: str) -> StoredSession:
        """Return a conversation with the runs in it, or raise `SessionNotFoundError`."""
        return await self._run(sessions.get_session, session_id)

    async def list_session_items(self, session_id: str, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the items of a conversation in order, or the latest `limit` of them."""
        return await self._run(sessions.list_session_items, session_id, limit=limit)

    async def delete_session(self, session_id: str, *, force: bool = False) -> StoredSession:
        """Delete a conversation and return it as it was; its runs stay.

        With `force` also one whose runs have not ended, else `SessionInUseError` is raised.
        """
        return await self._run(sessions.delete_session, session_id, force=force)

    async def list_schedules(self) -> list[Schedule]:
        """Return the schedules of this application in the order of their names."""
        return await self._run(schedules.list_schedules)

    async def get_schedule(self, name: str) -> Schedule:
        """Return a schedule, or raise `ScheduleNotFoundError`."""
        return await self._run(schedules.get_schedule, name)

    async def create_schedule(
        self,
        name: str,
        crontab: str,
        agent: str,
        input_items: str | list[dict[str, Any]],
        *,
        session_id: str | None = None,
        context: Any = None,
        timezone: str = "UTC",
        catch_up: CatchUp = schedules.DEFAULT_CATCH_UP,
        replace: bool = False,
    ) -> Schedule:
        """Make a schedule for an agent that executors have; see `timestep.create_scheduled_agent_workflow`.

        `context` is JSON, of which the executor makes the context type that is registered with the agent.
        """
        request = RunRequest(run_id="", agent=agent, input_items=input_items, session_id=session_id, context=context)
        return await self._run(
            schedules.save_schedule, name, crontab, request, timezone=timezone, catch_up=catch_up, replace=replace
        )

    async def pause_schedule(self, name: str) -> Schedule:
        """Let a schedule start no runs until it is resumed, and return it."""
        return await self._run(schedules.pause_schedule, name)

    async def resume_schedule(self, name: str) -> Schedule:
        """Let a paused schedule start runs again, and return it; what it has passed is not caught up with."""
        return await self._run(schedules.resume_schedule, name)

    async def delete_schedule(self, name: str) -> Schedule:
        """Delete a schedule and return it as it was; its runs stay."""
        return await self._run(schedules.delete_schedule, name)

    async def trigger_schedule(self, name: str) -> str:
        """Queue a run of a schedule now and return its id."""
        return await self._run(schedules.trigger_schedule, name)

    async def backfill_schedule(self, name: str, *, start: datetime, end: datetime) -> list[str]:
        """Queue the runs of past ticks from `start` on and before `end`; return the ids of those that were not there.

        1,000 ticks at most.
        """
        return await self._run(schedules.backfill_schedule, name, start=start, end=end)

    async def close(self) -> None:
        """Close the connections of this client; the database of the process stays open. May be called twice."""
        connector, self._connector = self._connector, None
        if connector is not None:
            await asyncio.to_thread(connector.close)
        own, self._own = self._own, None
        if own is not None:
            own.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, verb: Callable[Concatenate[Connector, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await (await self._connect()).run(verb, *args, **kwargs)

    async def _connect(self) -> Connector:
        async with self._opening:
            database = await self._database()
            if self._connector is None or self._connector.database is not database:
                before, self._connector = self._connector, Connector(database)
                if before is not None:  # that of the process was closed, and is opened again
                    await asyncio.to_thread(before.close)
            return self._connector

    async def _database(self) -> Database:
        if self._connection_string is None:
            return await open_current_database()
        if self._own is None:
            self._own = await open_other_database(self._connection_string)
        return self._own
