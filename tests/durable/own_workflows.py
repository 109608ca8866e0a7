"""A program's own workflows, and a second execution of one."""

from __future__ import annotations

import uuid
from typing import Any

from dbos import DBOS, SetWorkflowID


def workflow(body: Any) -> Any:
    """Make a workflow of a function, under a name of its own."""
    return DBOS.workflow(name=f"own-{uuid.uuid4().hex[:8]}")(body)


async def again(engine: Any, run_id: str) -> Any:
    """Execute a finished workflow again from a copy of its whole journal."""
    last = engine.value("select max(function_id) from dbos.operation_outputs where workflow_uuid = %s", run_id)
    with SetWorkflowID(f"copy-{uuid.uuid4().hex[:8]}"):
        handle = await DBOS.fork_workflow_async(run_id, last + 1)
    return await handle.get_result()
