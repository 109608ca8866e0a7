"""Durable AI agents on Postgres: OpenAI Agents SDK runs inside DBOS workflows.

Names load on first use: the Agents SDK takes more than a second to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timestep.durable.journal import register_serializer
    from timestep.durable.plain import consume_result, default_result_processor, run_agent
    from timestep.durable.queue import RunHandle, queue_agent_workflow
    from timestep.durable.registry import register_agents
    from timestep.durable.result import DurableRunResult
    from timestep.durable.run_state_store import RunStateStore
    from timestep.durable.schedule import Schedule, create_scheduled_agent_workflow
    from timestep.durable.start import run_agent_workflow, stream_events
    from timestep.durable.tool_call import ToolCall, current_tool_call
    from timestep.errors import InterruptionException, TimestepError
    from timestep.runtime import (
        cleanup_dbos,
        configure_dbos,
        ensure_dbos_launched,
        get_dbos_connection_string,
        is_dbos_launched,
    )
    from timestep.sessions import Session

__version__ = "0.1.0"

_HOMES = {
    "DurableRunResult": "timestep.durable.result",
    "InterruptionException": "timestep.errors",
    "RunHandle": "timestep.durable.queue",
    "RunStateStore": "timestep.durable.run_state_store",
    "Schedule": "timestep.durable.schedule",
    "Session": "timestep.sessions",
    "TimestepError": "timestep.errors",
    "ToolCall": "timestep.durable.tool_call",
    "cleanup_dbos": "timestep.runtime",
    "configure_dbos": "timestep.runtime",
    "consume_result": "timestep.durable.plain",
    "create_scheduled_agent_workflow": "timestep.durable.schedule",
    "current_tool_call": "timestep.durable.tool_call",
    "default_result_processor": "timestep.durable.plain",
    "ensure_dbos_launched": "timestep.runtime",
    "get_dbos_connection_string": "timestep.runtime",
    "is_dbos_launched": "timestep.runtime",
    "queue_agent_workflow": "timestep.durable.queue",
    "register_agents": "timestep.durable.registry",
    "register_serializer": "timestep.durable.journal",
    "run_agent": "timestep.durable.plain",
    "run_agent_workflow": "timestep.durable.start",
    "stream_events": "timestep.durable.start",
}

__all__ = [
    "DurableRunResult",
    "InterruptionException",
    "RunHandle",
    "RunStateStore",
    "Schedule",
    "Session",
    "TimestepError",
    "ToolCall",
    "__version__",
    "cleanup_dbos",
    "configure_dbos",
    "consume_result",
    "create_scheduled_agent_workflow",
    "current_tool_call",
    "default_result_processor",
    "ensure_dbos_launched",
    "get_dbos_connection_string",
    "is_dbos_launched",
    "queue_agent_workflow",
    "register_agents",
    "register_serializer",
    "run_agent",
    "run_agent_workflow",
    "stream_events",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'timestep' has no attribute {name!r}")
    if home.startswith("timestep.durable"):
        runtime = importlib.import_module("timestep.runtime")  # it knows how the engine is launched
        runtime.prepare_sdk()
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
