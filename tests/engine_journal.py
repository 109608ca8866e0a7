"""The journal of an engine as its database has it, read from outside, and a wait for a state."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from dbos import DBOS, SetWorkflowID
from psycopg.rows import dict_row

from timestep import home_loop
from timestep.durable.start import read_result
from timestep.embedded_postgres import EmbeddedPostgres

LIMIT_SECONDS = 60


def wait_until(claim: Callable[[], Any], what: str) -> Any:
    """Wait for a state and return it; the limit only ends a test that hangs. The loop of the test is blocked."""
    limit = time.monotonic() + LIMIT_SECONDS
    with home_loop.stepping_aside(lambda _: None):
        while not (found := claim()):
            assert time.monotonic() < limit, f"never happened: {what}"
            time.sleep(0.02)
    return found


class Journal:
    """The database of the engine, looked at from outside, and the replay of a run."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self.server, self.name = server, name

    def query(self, text: str, *parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with self.server.connect(self.name, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(text, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def value(self, text: str, *parameters: Any) -> Any:
        """Return the one value of a query."""
        [row] = self.query(text, *parameters)
        return next(iter(row.values()))

    def steps(self, run_id: str) -> list[str]:
        """Return the names of the recorded steps in the order of their ids."""
        rows = self.query(
            "select function_name from dbos.operation_outputs where workflow_uuid = %s order by function_id", run_id
        )
        return [row["function_name"] for row in rows]

    def output(self, run_id: str, step: str) -> Any:
        """Return the recorded JSON of a step, read by Postgres itself."""
        return self.value(
            "select output::json from dbos.operation_outputs where workflow_uuid = %s and function_name = %s",
            run_id, step,
        )  # fmt: skip

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the row of a run."""
        [row] = self.query("select * from timestep.runs where id = %s", run_id)
        return row

    def status(self, run_id: str) -> str | None:
        """Return the status of a run, None when there is no row."""
        rows = self.query("select status from timestep.runs where id = %s", run_id)
        return rows[0]["status"] if rows else None

    def wait_for(self, query: str) -> None:
        """Wait until a query has a row."""
        wait_until(lambda: self.query(query), query)

    def wait_for_status(self, run_id: str, *statuses: str) -> None:
        """Wait until a run has one of these statuses."""
        wait_until(lambda: self.status(run_id) in statuses, f"{run_id} {statuses}, is {self.status(run_id)}")

    def wait_until_refused(self, workflow_id: str) -> None:
        """Wait until DBOS has given up a workflow that it could not read."""
        query = "select 1 from dbos.workflow_status where workflow_uuid = %s and status in ('ERROR', 'CANCELLED')"
        wait_until(lambda: self.query(query, workflow_id), f"{workflow_id} refused")

    async def replay(self, run_id: str, *, steps: int | None = None) -> tuple[str, Any]:
        """Execute a run again from a copy of its first `steps` records, all when absent; return its id and result.

        What is not among the records is executed. What the run raises is the result.
        """
        recorded = self.query(
            "select function_id from dbos.operation_outputs where workflow_uuid = %s order by function_id", run_id
        )
        ids = [row["function_id"] for row in recorded]
        start = ids[-1] + 1 if steps is None else ids[steps] if steps < len(ids) else ids[-1] + 1
        copy = f"copy-{uuid.uuid4().hex[:8]}"
        with SetWorkflowID(copy):
            await DBOS.fork_workflow_async(run_id, start, queue_name="timestep_segments")
        self.wait_for_status(copy, "succeeded", "failed", "interrupted", "cancelled")
        try:
            return copy, await read_result(copy)
        except Exception as error:
            return copy, error
