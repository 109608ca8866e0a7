"""Let this process be stopped at every step boundary, inside every step and around the two transactions of a segment.

A point is named `begin 5`, `body 5`, `end 5`, `recorded 5` for step id 5: before it begins, inside its body, after its
body and before its record, after its record. The step of DBOS that closes the stream has the first and the last.
`start` and `close` are the transactions: `start before`, `start uncommitted`, `start after`. A point belongs to a
workflow: `run`, or `run~2` for its second segment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import side_log
from dbos import DBOS, StepReservation
from dbos import _context as dbos_context

from timestep.durable import start
from timestep.durable.process.gate import Gate
from timestep.durable.seams import dbos_journal
from timestep.durable.states import resume
from timestep.errors import ExecutorFencedError
from timestep.ids import segment_id
from timestep.store.agents import insert_definitions
from timestep.store.connection import Database
from timestep.store.segments import close_segment, start_segment

TRANSACTIONS = {start_segment: "start", close_segment: "close"}


def install() -> None:
    """Put the points in place, in a process that only tests run."""
    _watch_gate()
    _watch_steps()
    _watch_streams()
    _watch_transactions()
    _watch_claims()


def _watch_gate() -> None:
    pass_through = Gate.pass_through

    async def watched(self: Gate, *, has_begun: bool = False) -> None:
        try:
            await pass_through(self, has_begun=has_begun)
        except ExecutorFencedError:
            side_log.write("fenced", "")
            raise

    Gate.pass_through = watched  # type: ignore[method-assign]


def _watch_steps() -> None:
    run_async, run_reserved = StepReservation.run_async, dbos_journal.run_reserved

    async def run_async_watched(self: StepReservation, options: Any, body: Callable[[], Any]) -> Any:
        return await _watched(self, options["name"], body, lambda inside: run_async(self, options, inside))

    async def run_reserved_watched(
        reservation: StepReservation, name: str, body: Callable[[], Any], known: dbos_journal.Known
    ) -> Any:
        return await _watched(reservation, name, body, lambda inside: run_reserved(reservation, name, inside, known))

    StepReservation.run_async = run_async_watched  # type: ignore[method-assign]
    dbos_journal.run_reserved = run_reserved_watched


async def _watched(
    reservation: StepReservation, name: str, body: Callable[[], Any], execute: Callable[[Callable[[], Any]], Any]
) -> Any:
    run, step = reservation._step_ctx.workflow_id, reservation.step_id
    is_live = False

    async def inside() -> Any:
        nonlocal is_live
        is_live = True
        side_log.write("start", run, kind="step", name=name, step=step)
        if name.startswith("mcp_list_tools"):
            await side_log.stop_at(run, f"body {step}")
        result = await body()
        side_log.write("end", run, kind="step", name=name, step=step)
        await side_log.stop_at(run, f"end {step}")
        return result

    await side_log.stop_at(run, f"begin {step}")
    result = await execute(inside)
    if is_live:
        side_log.write("kept", run, step=step)
    await side_log.stop_at(run, f"recorded {step}")
    return result


def _watch_streams() -> None:
    close_stream = DBOS.close_stream_async

    async def watched(key: str) -> None:
        run = str(DBOS.workflow_id)
        context = dbos_context.get_local_dbos_context()
        assert context is not None
        step = context.function_id + 1
        await side_log.stop_at(run, f"begin {step}")
        await close_stream(key)
        await side_log.stop_at(run, f"recorded {step}")

    DBOS.close_stream_async = watched  # type: ignore[method-assign]


def _watch_transactions() -> None:
    run_until_done = Database.run_until_done

    async def watched(self: Database, function: Any, *args: Any, **kwargs: Any) -> Any:
        name = TRANSACTIONS.get(function)
        if name is None:
            return await run_until_done(self, function, *args, **kwargs)
        run_id, segment = (kwargs["run_id"], kwargs["segment"]) if kwargs else (args[0].run_id, args[0].segment)
        run = segment_id(run_id, segment)
        if definition := kwargs.get("definition"):
            # Each statement of a start commits by itself. Inside the transaction below this one would hold up every run
            # of the same agent for as long as this run is held.
            await self.run(insert_definitions, [definition])

        def uncommitted(connection: Any, *args: Any, **kwargs: Any) -> Any:
            result = function(connection, *args, **kwargs)
            side_log.stop_thread_at(run, f"{name} uncommitted")
            return result

        await side_log.stop_at(run, f"{name} before")
        result = await run_until_done(self, uncommitted, *args, **kwargs)
        await side_log.stop_at(run, f"{name} after")
        return result

    Database.run_until_done = watched  # type: ignore[method-assign]


def _watch_claims() -> None:
    """Stop around the transaction in which a program claims the next segment of a run that it resumes."""
    mark_claimed = resume.mark_claimed

    def watched(connection: Any, run_id: str, *, executor_id: str) -> None:
        mark_claimed(connection, run_id, executor_id=executor_id)
        side_log.stop_thread_at(run_id, "claim uncommitted")

    resume.mark_claimed = watched

    execute = start._execute_segment

    async def executed(run_id: str, number: int, work: dict[str, Any]) -> Any:
        if number > 1:
            await side_log.stop_at(run_id, "claim after")
        return await execute(run_id, number, work)

    start._execute_segment = executed  # type: ignore[assignment]
