"""Runs that wait, on a database where nothing is launched, and what they wait for."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import sqlalchemy as sa
from stored_runs import close_run

from timestep.client.connector import Connector
from timestep.client.decide import list_approvals
from timestep.records import Approval, Run
from timestep.store.connection import Database
from timestep.store.runs import get_stored_run
from timestep.store.tables import runs

_numbers = itertools.count(1)


class Desk:
    """Runs that wait, and a look at what became of them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.connector = Connector(database, application="test")

    def waiting(self, *calls: dict[str, Any], reason: str = "approval") -> str:
        """Store a run whose first segment ended with these questions and return its id."""
        run_id = f"run-{next(_numbers)}"
        asked = [self._asked(run_id, place, call) for place, call in enumerate(calls)]
        close_run(self.database, run_id, agent="clerk", reason=reason, approvals=asked)
        return run_id

    def _asked(self, run_id: str, place: int, call: dict[str, Any]) -> Approval:
        arguments = call.get("arguments", '{"order": 7}')
        fields: dict[str, Any] = {
            "id": f"{run_id}-{place}", "run_id": run_id, "segment": 1, "place": place, "session_id": None,
            "agent": "clerk", "tool": "refund", "call_id": f"call_{place}", "arguments": arguments,
            "arguments_digest": hashlib.sha256(arguments.encode()).hexdigest(),
        }  # fmt: skip
        return Approval(**fields | call)

    def change(self, run_id: str, **fields: Any) -> None:
        """Change the row of a run."""
        self.database.run_sync(lambda connection: connection.execute(
            sa.update(runs).where(runs.c.id == run_id).values(fields)))  # fmt: skip

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        """Return the rows of plain SQL."""

        def execute(connection: sa.Connection) -> list[Any]:
            found = connection.execute(sa.text(statement), parameters)
            return list(found) if found.returns_rows else []

        return self.database.run_sync(execute)

    def run(self, run_id: str) -> Run:
        return self.database.run_sync(get_stored_run, run_id).run

    def workflows(self, run_id: str) -> list[tuple[str, str]]:
        """Return id and name of the enqueued workflows of a run."""
        return self.sql(
            "select workflow_uuid, name from dbos.workflow_status where workflow_uuid like :id || '~%' order by 1",
            id=run_id,
        )

    async def statuses(self, run_id: str) -> list[str]:
        """Return the status of all approvals of a run in their order."""
        return [each.status for each in await list_approvals(run_id, is_waiting=False, database=self.database)]


QUESTION = {"kind": "question", "tool": "ask_user", "details": {"question": "Which?", "choices": ["S", "M"]}}
FREE_QUESTION = {"kind": "question", "tool": "ask_user", "details": {"question": "Which?", "choices": None}}
UNKNOWN = {"kind": "outcome_unknown", "call_key": "1:call_0", "details": {"attempt": 1, "started_at": "then"}}
LIMIT = {
    "kind": "limit", "tool": "", "call_id": "", "arguments": "",
    "details": {"limit": "max_turns", "value": 3, "used": 3, "message": "The run has reached max_turns=3."},
}  # fmt: skip
