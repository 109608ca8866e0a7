"""Workflows whose segment is closed while DBOS still has to note their end.

A caller gets its result at the closing transaction. The note follows in the same event loop; if that loop ends first,
`finish` makes it when the engine stops. Without it the workflow would be dispatched once more, to find itself closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from timestep.durable.seams import dbos_sdk

_noting: dict[str, asyncio.Future[Any]] = {}
_closed: dict[str, tuple[str | None, dict[str, Any]]] = {}


def note(workflow_id: str, handle: asyncio.Future[Any]) -> None:
    """Keep the handle of a workflow until DBOS has noted its end."""
    _noting[workflow_id] = handle
    handle.add_done_callback(lambda done: _forget(workflow_id, done))


def closed(workflow_id: str, summary: dict[str, Any]) -> None:
    """Note that the segment of this task's workflow is closed, with what the workflow returns."""
    if workflow_id in _noting:
        _closed[workflow_id] = (dbos_sdk.owner_token(), summary)


def finish() -> None:
    """Note the ends that are left; before the engine stops. Blocks."""
    for workflow_id, (token, summary) in list(_closed.items()):
        dbos_sdk.record_outcome(workflow_id, summary, owner=token)
    _closed.clear()
    _noting.clear()


def finish_left() -> None:
    """Note the ends that nobody notes any more, as their event loop has ended. Blocks."""
    for workflow_id in [each for each in list(_closed) if each not in _noting]:
        token, summary = _closed.pop(workflow_id)
        dbos_sdk.record_outcome(workflow_id, summary, owner=token)


def _forget(workflow_id: str, done: asyncio.Future[Any]) -> None:
    _noting.pop(workflow_id, None)
    if not done.cancelled():
        done.exception()  # seen
        _closed.pop(workflow_id, None)
