# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""Functions of the SDK that are replaced only to make them faster. Optional: without one, the SDK's own stay."""

from __future__ import annotations

import operator
from typing import Any

import agents._run_state_agent_identity as sdk_agent_identity
import agents.run_internal.agent_tool_configuration as sdk_tool_configuration
import agents.run_state as sdk_run_state
from agents import Agent, Tool

from timestep.durable.seams.release_check import AGENTS_RELEASE

build_agent_identity_map = sdk_agent_identity._build_agent_identity_map
observe_tools = sdk_tool_configuration._observe_tools
get_ambiguous_agent_ids = sdk_agent_identity._get_ambiguous_agent_ids


def install() -> None:
    """Put the faster functions in place; may be called again."""
    sdk_tool_configuration._observe_tools = _observe_tools
    for module in (sdk_agent_identity, sdk_run_state):
        module._build_agent_identity_map = _build_agent_identity_map
        module._get_ambiguous_agent_ids = _get_ambiguous_agent_ids


def _build_agent_identity_map(initial_agent: Agent[Any]) -> dict[str, Agent[Any]]:
    """Return what the SDK returns, at once when no two agents have the same name.

    Only agents of one name are told apart by what they are made of. The SDK describes every agent, six times for each
    `RunState.to_json`: half of its cost.
    """
    reached = list(sdk_agent_identity._iter_agent_graph(initial_agent))
    by_name = {agent.name: agent for agent in reached}
    return by_name if len(by_name) == len(reached) else build_agent_identity_map(initial_agent)


def _get_ambiguous_agent_ids(initial_agent: Agent[Any]) -> set[int]:
    reached = list(sdk_agent_identity._iter_agent_graph(initial_agent))
    is_clear = len({agent.name for agent in reached}) == len(reached)
    return set() if is_clear else get_ambiguous_agent_ids(initial_agent)


def _observe_tools(active: list[Any], tools: tuple[Tool, ...]) -> None:
    """Note a conflict between the running uses of one agent, as the SDK does, without a look at every one of them.

    The SDK compares `tools` with what each of them began with, several times a turn: of 200 runs at once that is a
    fifth of the work. Until a conflict is found all have begun with the same, so the first speaks for all; a conflict
    marks all that are there, so the first has every mark.
    """
    first = active[0] if active else None
    if first is None or len(active) == 1:
        return
    is_same = len(first.initial_tools) == len(tools) and all(map(operator.is_, first.initial_tools, tools))
    if first.conflicted or first.tools_assigned or not is_same:
        observe_tools(active, tools)


AGENTS_RELEASE.check(build_agent_identity_map, ["initial_agent"])
AGENTS_RELEASE.check(observe_tools, ["active", "tools"])
AGENTS_RELEASE.check(get_ambiguous_agent_ids, ["initial_agent"])
AGENTS_RELEASE.check(sdk_agent_identity._iter_agent_graph, ["initial_agent"])
