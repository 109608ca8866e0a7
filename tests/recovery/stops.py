"""Let this process be stopped at every step boundary, inside every step and around the two transactions of a segment.

A point is named `begin 5`, `body 5`, `end 5`, `recorded 5` for step id 5: before it begins, inside its body, after its
body and before its record, after its record. `start` and `close` are the transactions: `start before`, `start
uncommitted`, `start after`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import side_log
from dbos import StepReservation

from timestep.durable.gate import Gate
from timestep.errors import ExecutorFencedError
from timestep.store.connection import Database
from timestep.store.segments import close_segment, start_segment

TRANSACTIONS = {start_segment: "start", close_segment: "close"}


def install() -> None:
    """Put the points in place, in a process that only tests run."""
    _watch_gate()
    _watch_steps()
    _watch_transactions()


def _watch_gate() -> None:
    pass_through = Gate.pass_through

    async def watched(self: Gate) -> None:
        try:
            await pass_through(self)
        except ExecutorFencedError:
            side_log.write("fenced", "")
            raise

    Gate.pass_through = watched  # type: ignore[method-assign]


def _watch_steps() -> None:
    run_async = StepReservation.run_async

    async def watched(self: StepReservation, options: Any, body: Callable[[], Any]) -> Any:
        run, step, name = self._step_ctx.workflow_id, self.step_id, options["name"]

        async def inside() -> Any:
            side_log.write("start", run, kind="step", name=name, step=step)
            if name.startswith("mcp_list_tools"):
                await side_log.stop_at(run, f"body {step}")
            result = await body()
            side_log.write("end", run, kind="step", name=name, step=step)
            await side_log.stop_at(run, f"end {step}")
            return result

        await side_log.stop_at(run, f"begin {step}")
        result = await run_async(self, options, inside)
        await side_log.stop_at(run, f"recorded {step}")
        return result

    StepReservation.run_async = watched  # type: ignore[method-assign]


def _watch_transactions() -> None:
    run_until_done = Database.run_until_done

    async def watched(self: Database, function: Any, *args: Any, **kwargs: Any) -> Any:
        name = TRANSACTIONS.get(function)
        if name is None:
            return await run_until_done(self, function, *args, **kwargs)
        run = kwargs["run_id"] if "run_id" in kwargs else args[0].run_id

        def uncommitted(connection: Any, *args: Any, **kwargs: Any) -> Any:
            result = function(connection, *args, **kwargs)
            side_log.stop_thread_at(run, f"{name} uncommitted")
            return result

        await side_log.stop_at(run, f"{name} before")
        result = await run_until_done(self, uncommitted, *args, **kwargs)
        await side_log.stop_at(run, f"{name} after")
        return result

    Database.run_until_done = watched  # type: ignore[method-assign]
