"""Refuse at registration the types of which no value would come back: of a tool's result, of a context."""

from __future__ import annotations

from typing import Any

from agents import Agent, FunctionTool

from timestep.durable.process.agent_definition import reachable_agents
from timestep.durable.values.annotations import reason_not_kept, return_type_of
from timestep.errors import NotDurableError


def check_results(agent: Agent[Any]) -> None:
    """Refuse a tool that, by the annotation of its function, returns what would not come back.

    Raises:
        NotDurableError: the message names the tool and the type.
    """
    for found in reachable_agents(agent):
        for tool in found.tools:
            function = getattr(tool, "__wrapped__", None) if isinstance(tool, FunctionTool) else None
            if function is None:
                continue
            if reason := reason_not_kept(return_type_of(function)):
                raise NotDurableError(
                    f"What the tool {tool.name!r} of the agent {found.name!r} returns cannot be recorded: {reason}.",
                    hint="Return a dataclass, a pydantic model or JSON-able data, or call `register_serializer` for "
                    "the type before the agent is registered.",
                )


def check_context_type(kind: type) -> None:
    """Refuse a context type of which no value would come back.

    Raises:
        NotDurableError: the message names the type.
    """
    reason = reason_not_kept(kind) if "<locals>" not in kind.__qualname__ else None
    if reason is not None:
        raise NotDurableError(
            f"A context of the type {kind.__qualname__} cannot be stored: {reason}.",
            hint="Make it a dataclass or a pydantic model, or call `register_serializer` for it first.",
        )
