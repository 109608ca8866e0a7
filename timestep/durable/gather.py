"""Wait for many runs, in a tool, in a workflow or anywhere else."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS

from timestep import home_loop
from timestep.durable.handle import RunHandle
from timestep.durable.journal.child_runs import ending_together, waiting
from timestep.durable.process.engine import engine, ensure_engine
from timestep.durable.seams import dbos_sdk
from timestep.durable.start import recorded_result
from timestep.errors import InvalidInputError, RunNotFoundError
from timestep.store.runs import get_stored_run, statuses_of
from timestep.words import FINISHED, GATHER_RUNS

GATHER_POLL_SECONDS = 0.25
"""How often to check which runs have ended: one query for all of them."""


async def gather_runs(*runs: RunHandle | str, return_exceptions: bool = False) -> list[Any]:
    """Wait until all of these runs have ended, over all of their interruptions, and return their results in order.

    In a DBOS workflow the wait is one step, `gather_runs`, so that a replay sees the same ends. In a tool it is part of
    the tool's step: when the process dies the tool is repeated, finds the runs that it has started by their ids, and
    waits again. A process that drains does not wait for it.

    Args:
        runs: Handles of `queue_agent_workflow`, or run ids.
        return_exceptions: Put what a run ended with among the results instead of raising it.

    Raises:
        RunNotFoundError: there is no such run.
        Exception: what the first of the runs, in the given order, ended with; all of them have ended then.
    """
    for each in runs:
        if not isinstance(each, (RunHandle, str)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(
                f"gather_runs takes handles and run ids, not {type(each).__name__}: {each!r}.",
                hint="Start the runs with `queue_agent_workflow(...)`, and pass what it returns.",
            )
    home_loop.enter()
    ensure_engine()
    run_ids = [each.run_id if isinstance(each, RunHandle) else each for each in runs]

    async def wait() -> list[list[Any]]:
        return await _wait_for_all(run_ids)

    if dbos_sdk.is_in_workflow():
        ended = await DBOS.run_step_async({"name": GATHER_RUNS}, wait)
    else:
        with waiting():
            ended = await wait()
    results: list[Any] = []
    for run_id, segment in ended:
        stored = await engine().database.run_until_done(get_stored_run, run_id)
        try:
            with ending_together():
                results.append(await recorded_result(stored, segment))
        except Exception as error:
            if not return_exceptions:
                raise
            results.append(error)
    return results


async def _wait_for_all(run_ids: list[str]) -> list[list[Any]]:
    """Return id and last segment of each run when all have ended."""
    ended: dict[str, int] = {}
    while left := set(run_ids) - ended.keys():
        found = await engine().database.run_until_done(statuses_of, sorted(left))
        if missing := sorted(left - found.keys()):
            raise RunNotFoundError(f"There is no run {missing[0]!r}.")
        ended |= {run_id: segment for run_id, (status, segment) in found.items() if status in FINISHED}
        if len(ended) < len(set(run_ids)):
            await asyncio.sleep(GATHER_POLL_SECONDS)
    return [[run_id, ended[run_id]] for run_id in run_ids]
