"""Configure and launch the engine in this process; recover, drain, stop.

What an executor does as long as it lives belongs here: its lock, takeovers, versions and chores. How one run executes
belongs in `durable/`.
"""

from timestep.runtime.launch import (
    cleanup_dbos,
    configure_dbos,
    drain,
    ensure_dbos_launched,
    get_dbos_connection_string,
    is_dbos_launched,
    prepare_sdk,
)

__all__ = [
    "cleanup_dbos",
    "configure_dbos",
    "drain",
    "ensure_dbos_launched",
    "get_dbos_connection_string",
    "is_dbos_launched",
    "prepare_sdk",
]
