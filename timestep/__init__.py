"""Durable AI agents on Postgres: OpenAI Agents SDK runs inside DBOS workflows.

Names load on first use: the Agents SDK takes more than a second to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timestep.client import Client
    from timestep.client.decide import answer, approve, get_approval, list_approvals, raise_limits, reject, settle
    from timestep.client.events import stream_run
    from timestep.client.sessions import Session
    from timestep.durable.enqueue import queue_agent_workflow
    from timestep.durable.enqueue_many import queue_many
    from timestep.durable.gather import gather_runs
    from timestep.durable.handle import RunHandle
    from timestep.durable.process.registered_agents import register_agents
    from timestep.durable.process.tool_policies import tool_policy
    from timestep.durable.queues import create_queue
    from timestep.durable.result import DurableRunResult
    from timestep.durable.run_agent import consume_result, default_result_processor, run_agent
    from timestep.durable.run_state_store import RunStateStore
    from timestep.durable.schedules import create_scheduled_agent_workflow
    from timestep.durable.start import run_agent_workflow, wait_run
    from timestep.durable.steps.tool_call import current_tool_call
    from timestep.durable.values.registered_types import register_serializer
    from timestep.errors import ApprovalAlreadyDecided, InterruptionException, SnapshotAlreadyResumed, TimestepError
    from timestep.models.compatible import OpenAICompatibleProvider
    from timestep.models.fallback import FallbackModel
    from timestep.models.multi_model import MultiModelProvider, MultiModelProviderMap, set_default_model_provider
    from timestep.models.ollama_model import OllamaModel
    from timestep.models.ollama_provider import OllamaModelProvider
    from timestep.records import Approval, Queue, QueueLimits, RunLimits, Schedule, ToolCall
    from timestep.runtime import (
        cleanup_dbos,
        configure_dbos,
        ensure_dbos_launched,
        get_dbos_connection_string,
        is_dbos_launched,
    )
    from timestep.tools.ask_user import ask_user
    from timestep.tools.web_search import web_search

__version__ = "0.1.0"

_HOMES = {
    "Approval": "timestep.records",
    "ApprovalAlreadyDecided": "timestep.errors",
    "Client": "timestep.client",
    "DurableRunResult": "timestep.durable.result",
    "FallbackModel": "timestep.models.fallback",
    "InterruptionException": "timestep.errors",
    "MultiModelProvider": "timestep.models.multi_model",
    "MultiModelProviderMap": "timestep.models.multi_model",
    "OllamaModel": "timestep.models.ollama_model",
    "OllamaModelProvider": "timestep.models.ollama_provider",
    "OpenAICompatibleProvider": "timestep.models.compatible",
    "Queue": "timestep.records",
    "QueueLimits": "timestep.records",
    "RunHandle": "timestep.durable.handle",
    "RunLimits": "timestep.records",
    "RunStateStore": "timestep.durable.run_state_store",
    "Schedule": "timestep.records",
    "Session": "timestep.client.sessions",
    "SnapshotAlreadyResumed": "timestep.errors",
    "TimestepError": "timestep.errors",
    "ToolCall": "timestep.records",
    "answer": "timestep.client.decide",
    "approve": "timestep.client.decide",
    "ask_user": "timestep.tools.ask_user",
    "cleanup_dbos": "timestep.runtime",
    "configure_dbos": "timestep.runtime",
    "consume_result": "timestep.durable.run_agent",
    "create_queue": "timestep.durable.queues",
    "create_scheduled_agent_workflow": "timestep.durable.schedules",
    "current_tool_call": "timestep.durable.steps.tool_call",
    "default_result_processor": "timestep.durable.run_agent",
    "ensure_dbos_launched": "timestep.runtime",
    "gather_runs": "timestep.durable.gather",
    "get_approval": "timestep.client.decide",
    "get_dbos_connection_string": "timestep.runtime",
    "is_dbos_launched": "timestep.runtime",
    "list_approvals": "timestep.client.decide",
    "queue_agent_workflow": "timestep.durable.enqueue",
    "queue_many": "timestep.durable.enqueue_many",
    "raise_limits": "timestep.client.decide",
    "register_agents": "timestep.durable.process.registered_agents",
    "register_serializer": "timestep.durable.values.registered_types",
    "reject": "timestep.client.decide",
    "run_agent": "timestep.durable.run_agent",
    "run_agent_workflow": "timestep.durable.start",
    "set_default_model_provider": "timestep.models.multi_model",
    "settle": "timestep.client.decide",
    "stream_run": "timestep.client.events",
    "tool_policy": "timestep.durable.process.tool_policies",
    "wait_run": "timestep.durable.start",
    "web_search": "timestep.tools.web_search",
}

__all__ = [
    "Approval",
    "ApprovalAlreadyDecided",
    "Client",
    "DurableRunResult",
    "FallbackModel",
    "InterruptionException",
    "MultiModelProvider",
    "MultiModelProviderMap",
    "OllamaModel",
    "OllamaModelProvider",
    "OpenAICompatibleProvider",
    "Queue",
    "QueueLimits",
    "RunHandle",
    "RunLimits",
    "RunStateStore",
    "Schedule",
    "Session",
    "SnapshotAlreadyResumed",
    "TimestepError",
    "ToolCall",
    "__version__",
    "answer",
    "approve",
    "ask_user",
    "cleanup_dbos",
    "configure_dbos",
    "consume_result",
    "create_queue",
    "create_scheduled_agent_workflow",
    "current_tool_call",
    "default_result_processor",
    "ensure_dbos_launched",
    "gather_runs",
    "get_approval",
    "get_dbos_connection_string",
    "is_dbos_launched",
    "list_approvals",
    "queue_agent_workflow",
    "queue_many",
    "raise_limits",
    "register_agents",
    "register_serializer",
    "reject",
    "run_agent",
    "run_agent_workflow",
    "set_default_model_provider",
    "settle",
    "stream_run",
    "tool_policy",
    "wait_run",
    "web_search",
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
