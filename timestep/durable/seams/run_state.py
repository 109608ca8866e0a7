# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""What Timestep reads of a RunState: from its versioned JSON at a resume, else from its private fields.

The JSON costs 1 ms for a short state and 15 ms for a hundred turns, a third of what loading the state costs. It does
not carry the tools that pending calls need, nor what a result is made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents import Agent, RunResult, RunResultStreaming, RunState, Tool
from agents.items import ItemHelpers, MessageOutputItem, ToolApprovalItem, ToolCallOutputItem

from timestep.durable.seams.agents_sdk import get_output_schema
from timestep.durable.seams.release_check import AGENTS_RELEASE
from timestep.durable.seams.sdk_calls import call_id_of
from timestep.words import CALL_GROUPS


def pending_calls(state: RunState[Any]) -> tuple[list[Any], list[Tool]]:
    """Return the tool calls of an interrupted turn in the model's order, and the tools that they name."""
    processed = state._last_processed_response
    if processed is None:
        return [], []
    functions = processed.functions
    others = [
        *processed.custom_tool_calls,
        *processed.shell_calls,
        *processed.local_shell_calls,
        *processed.apply_patch_calls,
        *processed.computer_actions,
    ]
    handoffs = processed.handoffs
    calls = [run.tool_call for run in (*functions, *others, *handoffs)]
    return calls, [run.function_tool for run in functions]


def turns_of(state: RunState[Any]) -> int:
    """Return how many turns a RunState has behind it."""
    return state._current_turn


def current_agent_of(state: RunState[Any]) -> Agent[Any] | None:
    """Return the agent that a RunState goes on with."""
    return state._current_agent


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided about an interruption, in the state that owns it; `is_approved` is None when nothing was."""

    owner: RunState[Any]
    item: ToolApprovalItem
    is_approved: bool | None
    reason: str | None


def decision_about(state: RunState[Any], item: ToolApprovalItem) -> Decision:
    """Return what was decided about an interruption of a state.

    Raises:
        ModelBehaviorError: the call has other arguments than those that were decided.
    """
    owner: RunState[Any]
    nested = state._find_nested_approval_state(item)
    owner, found = nested if nested is not None else (state, state._find_current_approval_item(item) or item)
    context = owner._context
    assert context is not None
    name, call_id = found.tool_name or "", found.call_id or ""
    is_approved = context.get_approval_status(name, call_id, existing_pending=found, current_invocation=found)
    reason = context.get_rejection_message(name, call_id, existing_pending=found) if is_approved is False else None
    return Decision(owner=owner, item=found, is_approved=is_approved, reason=reason)


def are_for_the_whole_run(decisions: Sequence[Decision]) -> list[bool]:
    """Return of each decision whether it holds for every later call of the tool in the run."""
    owners = {id(each.owner): each.owner for each in decisions if each.is_approved is not None}
    contexts = {key: _json_of(owner)["context"] for key, owner in owners.items()}
    return [each.is_approved is not None and _is_sticky(each, contexts[id(each.owner)]) for each in decisions]


def _is_sticky(decision: Decision, context: Mapping[str, Any]) -> bool:
    invocation = context["tool_invocations"].get(decision.item.call_id)
    if invocation is None:
        return False
    owned = [
        each for each in context.get("function_tool_approvals", ()) if each["agent"]["name"] == decision.item.agent.name
    ]
    answer = "approved" if decision.is_approved else "rejected"
    return any(
        record[answer] is True and record.get("sticky_scope") == invocation["approval_scope"]
        for record in (*context["approvals"].values(), *(each["decision"] for each in owned))
    )


def _json_of(state: RunState[Any]) -> dict[str, Any]:
    """Return the JSON of a state without the run's own context, which may have none."""
    return state.to_json(context_serializer=lambda context: {})


def set_max_turns(state: RunState[Any], max_turns: int | None) -> None:
    """Give a RunState another limit of turns; resuming takes the limit from the state alone."""
    state._max_turns = max_turns


def items_of(state: RunState[Any]) -> list[Any]:
    """Return the items that a run made, of its RunState."""
    return list(state._generated_items)


def items_by_group(state: RunState[Any]) -> dict[str, list[Any]]:
    """Return the items of a state by the names that its JSON has for the two lists of them."""
    generated = state._merge_generated_items_with_processed()
    return {"generated_items": list(generated), "session_items": list(state._session_items)}


def context_of(state: RunState[Any]) -> Any:
    """Return the run's context that a RunState holds."""
    return state._context.context if state._context is not None else None


def usage_of(state: RunState[Any]) -> Any:
    """Return the usage that a RunState counts."""
    return state._context.usage if state._context is not None else None


def finished_result(state: RunState[Any], output: Any, *, is_streamed: bool = False) -> RunResult | RunResultStreaming:
    """Return the result of a run that has ended, of its state and its output; no model is called."""
    agent, context = state._current_agent, state._context
    assert agent is not None
    assert context is not None
    fields: dict[str, Any] = {
        "input": state._original_input,
        "new_items": list(state._session_items),
        "raw_responses": list(state._model_responses),
        "final_output": output,
        "input_guardrail_results": state._input_guardrail_results,
        "output_guardrail_results": state._output_guardrail_results,
        "tool_input_guardrail_results": state._tool_input_guardrail_results,
        "tool_output_guardrail_results": state._tool_output_guardrail_results,
        "context_wrapper": context,
        "max_turns": state._max_turns,
        "_last_processed_response": state._last_processed_response,
        "_tool_use_tracker_snapshot": state.get_tool_use_tracker_snapshot(),
        "_current_turn_persisted_item_count": state._current_turn_persisted_item_count,
        "_model_input_items": list(state._generated_items),
        "_original_input": state._original_input,
        "_conversation_id": state._conversation_id,
        "_previous_response_id": state._previous_response_id,
        "_auto_previous_response_id": state._auto_previous_response_id,
    }
    result: RunResult | RunResultStreaming
    if is_streamed:
        result = RunResultStreaming(
            **fields,
            current_agent=agent,
            current_turn=state._current_turn,
            is_complete=True,
            trace=None,
            _current_agent_output_schema=None,
        )
        result._state = state
    else:
        result = RunResult(**fields, _last_agent=agent, _current_turn=state._current_turn)
    result._trace_state = state._trace_state
    result._starting_agent_for_state = state._starting_agent
    result._reasoning_item_id_policy = state._reasoning_item_id_policy
    result._generated_prompt_cache_key = state._generated_prompt_cache_key
    return result


def output_of_last_item(state: RunState[Any]) -> tuple[bool, Any]:
    """Return whether the last item of a state without a next step ends its run, and the final output that it then is.

    For a state whose result nobody has seen; one that cannot be told is taken as not ended.
    """
    agent, items = current_agent_of(state), items_of(state)
    last = items[-1] if items else None
    if agent is None:
        return False, None
    if isinstance(last, MessageOutputItem):
        text = ItemHelpers.text_message_output(last)
        schema = get_output_schema(agent)
        return True, text if schema is None or schema.is_plain_text() else schema.validate_json(text)
    if isinstance(last, ToolCallOutputItem) and agent.tool_use_behavior == "stop_on_first_tool":
        return True, last.output
    return False, None


def lost_calls(state: RunState[Any], data: Mapping[str, Any]) -> list[str]:
    """Return the names of the calls of an interrupted turn that are in the JSON of a state and not in the state.

    The SDK leaves out, without a word, a call whose tool the agent does not have.
    """
    return _lost(data, _json_of(state)) if _is_interrupted(data) else []


def _lost(stored: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    calls, kept_calls = stored.get("last_processed_response") or {}, kept["last_processed_response"] or {}
    known = {call_id_of(entry["tool_call"]): entry for group in CALL_GROUPS for entry in kept_calls.get(group) or []}
    lost: list[str] = []
    for group, kind in CALL_GROUPS.items():
        for entry in calls.get(group) or []:
            tool, call = entry.get(kind) or {}, entry.get("tool_call") or {}
            if call_id_of(call) not in known:
                lost.append(str(tool.get("name") or tool.get("tool_name") or call.get("name") or kind))
    for entry in calls.get("functions") or []:
        found, inner = known.get(call_id_of(entry["tool_call"])), entry.get("agent_run_state")
        if found is not None and inner is not None and _is_interrupted(inner):
            inner_kept = found.get("agent_run_state")
            lost += _lost(inner, inner_kept) if inner_kept is not None else [str(found["tool"]["name"])]
    return lost


def _is_interrupted(data: Mapping[str, Any]) -> bool:
    return (data.get("current_step") or {}).get("type") == "next_step_interruption"


AGENTS_RELEASE.check(RunState._find_nested_approval_state, ["self", "approval_item"])
AGENTS_RELEASE.check(RunState._find_current_approval_item, ["self", "approval_item", "approval_is_authoritative"])
AGENTS_RELEASE.check_attributes(RunState, [
    "_auto_previous_response_id", "_context", "_conversation_id", "_current_agent", "_current_turn",
    "_current_turn_persisted_item_count", "_generated_items", "_generated_prompt_cache_key",
    "_input_guardrail_results", "_last_processed_response", "_max_turns", "_model_responses", "_original_input",
    "_output_guardrail_results", "_previous_response_id", "_reasoning_item_id_policy", "_session_items",
    "_starting_agent", "_tool_input_guardrail_results", "_tool_output_guardrail_results", "_trace_state",
])  # fmt: skip
