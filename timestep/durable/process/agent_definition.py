"""What an agent is made of, as JSON, and its content hash.

The definition is for people, other languages and for telling two agents of one name apart. It names code (tools,
callbacks) by its qualified name; it is no serialised agent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from agents import Agent, FunctionTool, Handoff
from pydantic import TypeAdapter

from timestep.durable.seams.agents_sdk import agent_of_tool, handoff_target, is_agent_tool
from timestep.store.agents import AgentDefinition
from timestep.store.json_text import dump_json

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def define_agent(agent: Agent[Any]) -> AgentDefinition:
    """Return the definition of an agent and of all agents that it can reach, with the SHA-256 of its JSON."""
    reached = list(reachable_agents(agent))
    definition = {"name": agent.name, "agents": {found.name: _describe(found) for found in reached}}
    digest = hashlib.sha256(dump_json(definition).encode()).hexdigest()
    return AgentDefinition(hash=digest, name=agent.name, definition=definition)


def reachable_agents(agent: Agent[Any]) -> Iterator[Agent[Any]]:
    """Yield an agent, then those that it reaches by handoffs and agent-tools, each once; circles are fine."""
    seen: set[int] = set()
    waiting = [agent]
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        for handoff in found.handoffs:
            target = handoff if isinstance(handoff, Agent) else handoff_target(handoff)
            if target is not None:
                waiting.append(target)
        for tool in found.tools:
            if isinstance(tool, FunctionTool) and is_agent_tool(tool) and (inner := agent_of_tool(tool)) is not None:
                waiting.append(inner)


def _describe(agent: Agent[Any]) -> dict[str, Any]:
    return {
        "name": agent.name,
        "instructions": agent.instructions if isinstance(agent.instructions, str) else _code(agent.instructions),
        "handoff_description": agent.handoff_description,
        "model": agent.model if isinstance(agent.model, str) else _code(agent.model),
        "model_settings": _json(agent.model_settings.to_json_dict()),
        "tools": [_describe_tool(tool) for tool in agent.tools],
        "handoffs": [_describe_handoff(handoff) for handoff in agent.handoffs],
        "mcp_servers": [server.name for server in agent.mcp_servers],
        "input_guardrails": [guardrail.get_name() for guardrail in agent.input_guardrails],
        "output_guardrails": [guardrail.get_name() for guardrail in agent.output_guardrails],
        "output_type": _code(agent.output_type),
        "tool_use_behavior": _json(agent.tool_use_behavior),
    }


def _describe_tool(tool: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(tool).__name__, "name": tool.name}
    if isinstance(tool, FunctionTool):
        needs_approval = tool.needs_approval
        described |= {
            "description": tool.description,
            "parameters": _json(tool.params_json_schema),
            "needs_approval": needs_approval if isinstance(needs_approval, bool) else _code(needs_approval),
        }
        if is_agent_tool(tool) and (inner := agent_of_tool(tool)) is not None:
            described["agent"] = inner.name
    return described


def _describe_handoff(handoff: Agent[Any] | Handoff[Any, Any]) -> dict[str, Any]:
    if isinstance(handoff, Agent):
        return {"agent": handoff.name, "tool": Handoff.default_tool_name(handoff)}
    return {"agent": handoff.agent_name, "tool": handoff.tool_name}


def _code(thing: Any) -> str | None:
    """Return the qualified name of code, or of the class of an object."""
    if thing is None:
        return None
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def _json(value: Any) -> Any:
    try:
        return _ANY.dump_python(value, mode="json", fallback=_code)
    except Exception:  # noqa: BLE001 - whatever a user's settings hold, they have a name
        return _code(value)
