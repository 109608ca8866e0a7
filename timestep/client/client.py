"""Every verb on runs, queues and approvals for programs that execute nothing: no SDK is loaded, nothing is launched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

from dbos import DBOSClient

from timestep.client import approvals, executors, queues, runs, schedules
from timestep.client.events import stream_run
from timestep.errors import InvalidInputError
from timestep.records import (
    USAGE_KEYS,
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
    StrandedRun,
    UsageKey,
    UsageTotal,
)
from timestep.settings import current_settings
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database, open_other_database
from timestep.store.runs import get_stored_run
from timestep.store.usage import sum_usage
from timestep.words import FINISHED, RunStatus


class Client:
    """Looks at runs and decides about them, from any process that reaches the database.

    Also an asynchronous context manager, which closes it.
    """

    def __init__(self, connection_string: str | None = None) -> None:
        """Connect to nothing yet; without `connection_string` the database is that of the process."""
        self._connection_string = connection_string
        self._own: Database | None = None
        self._dbos: DBOSClient | None = None
        self._opening = asyncio.Lock()

    async def get_run(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            RunNotFoundError: there is no such run.
        """
        return (await (await self._database()).run(get_stored_run, run_id)).run

    async def list_runs(
        self,
        *,
        statuses: Sequence[RunStatus] = (),
        agent: str | None = None,
        session_id: str | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """Return runs, the newest first."""
        database = await self._database()
        return await asyncio.to_thread(
            runs.find_runs, database, statuses=statuses, agent=agent, session_id=session_id, limit=limit
        )

    async def list_stranded_runs(self, *, limit: int = 100) -> list[StrandedRun]:
        """Return the runs that no live executor can take, with what is missing and what mends it."""
        database, client = await self._database(), await self._client()
        return await asyncio.to_thread(executors.list_stranded_runs, database, client, limit=limit)

    async def list_executors(self) -> list[Executor]:
        """Return the processes that execute runs, the oldest first; those that are gone until they are taken over."""
        return await asyncio.to_thread(executors.list_executors, await self._database())

    async def list_steps(self, run_id: str) -> list[Step]:
        """Return the recorded steps of a run, segment by segment."""
        run = await self.get_run(run_id)
        return await asyncio.to_thread(runs.list_steps, await self._client(), run)

    async def wait_run(self, run_id: str) -> Run:
        """Return a run when it has ended, over all of its segments and interruptions."""
        return (await runs.wait_run(await self._database(), run_id, until=FINISHED)).run

    async def cancel_run(self, run_id: str, *, children: bool = False) -> Run:
        """Cancel a run and return it as it was; with `children` also the runs that it has started, and theirs.

        Raises:
            RunNotFoundError: there is no such run.
            RunStateError: it has ended.
        """
        database, client = await self._database(), await self._client()
        return await asyncio.to_thread(runs.cancel_run, database, client, run_id, children=children)

    async def resume_run(self, run_id: str, *, max_turns: int | None = None) -> Run:
        """Let a cancelled, parked or failed run go on and return it as it was.

        Raises:
            RunNotFoundError: there is no such run.
            RunStateError: it is running, queued, has succeeded, or waits for a decision.
        """
        database, client = await self._database(), await self._client()
        return await asyncio.to_thread(runs.resume_run, database, client, run_id, max_turns=max_turns)

    async def stream_run(
        self, run_id: str, from_offset: int = 0, *, raw: bool = False
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a run from an offset on; see `timestep.stream_run`."""
        database, client = await self._database(), await self._client()
        async for event in stream_run(run_id, from_offset, raw=raw, database=database, client=client):
            yield event

    async def list_usage(self, *, by: UsageKey = "model", since: datetime | None = None) -> list[UsageTotal]:
        """Return tokens and cost of the model calls that finished at `since` or later, by what they have in common.

        Raises:
            InvalidInputError: `by` is another word, or `since` has no time zone.
        """
        if by not in USAGE_KEYS:
            raise InvalidInputError(f"Usage is listed by one of {', '.join(USAGE_KEYS)}, not by {by!r}.")
        if since is not None and since.tzinfo is None:
            raise InvalidInputError(f"The time {since.isoformat()!r} has no time zone.")
        return await (await self._database()).run(sum_usage, by=by, since=since)

    async def list_queues(self) -> list[Queue]:
        """Return the queues in the order of their names, with what is in them."""
        return await asyncio.to_thread(queues.list_queues, await self._database(), await self._client())

    async def get_queue(self, name: str) -> Queue:
        """Return a queue with what is in it.

        Raises:
            QueueNotFoundError: there is none of that name.
        """
        return await asyncio.to_thread(queues.get_queue, await self._database(), await self._client(), name)

    async def create_queue(
        self, name: str, limits: QueueLimits | None = None, *, replace: bool = False
    ) -> queues.Change:
        """Make a queue, or with `replace` give one that is there other limits; say which.

        Raises:
            InvalidInputError: the name is malformed or another application's, or it is there with other limits.
        """
        client = await self._client()
        return await asyncio.to_thread(
            queues.create_queue, client, name, limits if limits is not None else QueueLimits(), replace=replace
        )

    async def pause_queue(self, name: str) -> bool:
        """Let no run of a queue start any more; those that run go on. False when it was paused before.

        Raises:
            QueueNotFoundError: there is none of that name.
        """
        return await asyncio.to_thread(queues.pause_queue, await self._client(), name)

    async def resume_queue(self, name: str) -> bool:
        """Let the runs of a paused queue start again. False when it was not paused.

        Raises:
            QueueNotFoundError: there is none of that name.
        """
        return await asyncio.to_thread(queues.resume_queue, await self._client(), name)

    async def delete_queue(self, name: str) -> None:
        """Delete a queue in which nothing waits.

        Raises:
            QueueNotFoundError: there is none of that name.
            QueueNotEmptyError: runs wait in it.
        """
        await asyncio.to_thread(queues.delete_queue, await self._database(), await self._client(), name)

    async def list_approvals(
        self, run_id: str | None = None, *, is_waiting: bool = True, limit: int = 100
    ) -> list[Approval]:
        """Return what runs wait for, the oldest first; with `is_waiting` false also what was decided."""
        return await approvals.list_approvals(
            run_id, is_waiting=is_waiting, limit=limit, database=await self._database()
        )

    async def get_approval(self, approval_id: str) -> Approval:
        """Return one approval.

        Raises:
            ApprovalNotFoundError: there is none of that id.
        """
        return await approvals.get_approval(approval_id, database=await self._database())

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
        return await approvals.approve(
            run_id,
            call_id,
            by=by,
            always=always,
            approval_id=approval_id,
            arguments_digest=arguments_digest,
            database=await self._database(),
        )

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
        return await approvals.reject(
            run_id,
            call_id,
            by=by,
            reason=reason,
            always=always,
            approval_id=approval_id,
            arguments_digest=arguments_digest,
            database=await self._database(),
        )

    async def answer(
        self, run_id: str, text: str, call_id: str | None = None, *, by: str, approval_id: str | None = None
    ) -> Approval:
        """Answer a question of the model; see `timestep.answer`."""
        database = await self._database()
        return await approvals.answer(run_id, text, call_id, by=by, approval_id=approval_id, database=database)

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
        return await approvals.settle(
            run_id,
            call_id,
            by=by,
            outcome=outcome,
            result=result,
            approval_id=approval_id,
            database=await self._database(),
        )

    async def raise_limits(
        self, run_id: str, limits: RunLimits, *, by: str, approval_id: str | None = None
    ) -> Approval:
        """Let a run that reached a limit go on; see `timestep.raise_limits`."""
        database = await self._database()
        return await approvals.raise_limits(run_id, limits, by=by, approval_id=approval_id, database=database)

    async def list_schedules(self) -> list[Schedule]:
        """Return the schedules of this application in the order of their names."""
        return await asyncio.to_thread(schedules.list_schedules, await self._client())

    async def get_schedule(self, name: str) -> Schedule:
        """Return a schedule.

        Raises:
            ScheduleNotFoundError: there is none of that name.
        """
        return await asyncio.to_thread(schedules.get_schedule, await self._client(), name)

    async def create_schedule(
        self,
        name: str,
        crontab: str,
        agent: str,
        input_items: str | list[dict[str, Any]],
        *,
        session_id: str | None = None,
        timezone: str = "UTC",
        catch_up: CatchUp = schedules.DEFAULT_CATCH_UP,
        replace: bool = False,
    ) -> Schedule:
        """Make a schedule for an agent that executors have; see `timestep.create_scheduled_agent_workflow`.

        Raises:
            InvalidInputError: a value is malformed, or there is a schedule of that name and `replace` is false.
        """
        request = RunRequest(run_id="", agent=agent, input_items=input_items, session_id=session_id)
        client = await self._client()
        return await asyncio.to_thread(
            schedules.save_schedule,
            client, name, crontab, request, timezone=timezone, catch_up=catch_up, replace=replace,
        )  # fmt: skip

    async def pause_schedule(self, name: str) -> Schedule:
        """Let a schedule start no runs until it is resumed, and return it.

        Raises:
            ScheduleNotFoundError: there is none of that name.
        """
        return await asyncio.to_thread(schedules.pause_schedule, await self._client(), name)

    async def resume_schedule(self, name: str) -> Schedule:
        """Let a paused schedule start runs again, and return it; what it has passed is not caught up with.

        Raises:
            ScheduleNotFoundError: there is none of that name.
        """
        return await asyncio.to_thread(schedules.resume_schedule, await self._client(), name)

    async def delete_schedule(self, name: str) -> Schedule:
        """Delete a schedule and return it as it was; its runs stay.

        Raises:
            ScheduleNotFoundError: there is none of that name.
        """
        return await asyncio.to_thread(schedules.delete_schedule, await self._client(), name)

    async def trigger_schedule(self, name: str) -> str:
        """Queue a run of a schedule now and return its id.

        Raises:
            ScheduleNotFoundError: there is none of that name.
        """
        database, client = await self._database(), await self._client()
        return await asyncio.to_thread(schedules.trigger_schedule, database, client, name)

    async def backfill_schedule(self, name: str, *, start: datetime, end: datetime) -> list[str]:
        """Queue the runs of past ticks from `start` on and before `end`; return the ids of those that were not there.

        Raises:
            ScheduleNotFoundError: there is none of that name.
            InvalidInputError: the times are no past time, or have more than 1,000 ticks.
        """
        database, client = await self._database(), await self._client()
        return await asyncio.to_thread(schedules.backfill_schedule, database, client, name, start=start, end=end)

    async def close(self) -> None:
        """Close the connections of this client; the database of the process stays open. May be called twice."""
        dbos, self._dbos = self._dbos, None
        if dbos is not None:
            await asyncio.to_thread(dbos.destroy)
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

    async def _database(self) -> Database:
        if self._connection_string is None:
            return await open_current_database()
        async with self._opening:
            if self._own is None:
                self._own = await open_other_database(self._connection_string)
            return self._own

    async def _client(self) -> DBOSClient:
        database = await self._database()
        async with self._opening:
            if self._dbos is None:
                self._dbos = await asyncio.to_thread(runs.connect_client, database, name=current_settings().name)
            return self._dbos
