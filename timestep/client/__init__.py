"""Every verb on runs, approvals, queues, schedules and sessions for programs that execute nothing.

They are synchronous functions of a `Connector`. The command line and the dashboard stand on these functions alone;
`Client` and the public verbs of `decide.py` run them in threads. Nothing here launches DBOS or loads the Agents SDK:
what executes runs belongs in `durable/`, and rows and SQL belong in `store/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timestep.client.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """Load `Client` when it is asked for, so that its parts start without it."""
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from timestep.client.client import Client

    return Client
