# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""What Timestep reads of the private fields of a RunState."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents import Agent, RunResult, RunResultStreaming, RunState, Tool
from agents.agent_tool_state import peek_agent_tool_run_result
from agents.items import ItemHelpers, MessageOutputItem, ToolApprovalItem, ToolCallOutputItem
from agents.run_context import RunContextWrapper

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


def decision_about(state: RunState[Any], item: ToolApprovalItem) -> tuple[bool | None, bool, str | None]:
    """Return whether an interruption was approved (None: not decided), whether for the whole run, and the reason."""
    nested = state._find_nested_approval_state(item)
    owner, found = nested if nested is not None else (state, state._find_current_approval_item(item) or item)
    context = owner._context
    assert context is not None
    name, call_id = found.tool_name or "", found.call_id or ""
    is_approved = context.get_approval_status(name, call_id, existing_pending=found, current_invocation=found)
    keys = context._resolve_approval_keys(found)
    records = [context._approvals.get(context._function_approval_key(key, found) or key) for key in keys]
    is_sticky = any(each is not None and (each.approved if is_approved else each.rejected) is True for each in records)
    reason = context.get_rejection_message(name, call_id, existing_pending=found) if is_approved is False else None
    return is_approved, is_approved is not None and is_sticky, reason


def set_max_turns(state: RunState[Any], max_turns: int | None) -> None:
    """Give a RunState another limit of turns; resuming takes the limit from the state alone."""
    state._max_turns = max_turns


def items_of(state: RunState[Any]) -> list[Any]:
    """Return the items that a run made, of its RunState."""
    return list(state._generated_items)


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
    if is_streamed:
        fields |= {"current_agent": agent, "current_turn": state._current_turn, "is_complete": True, "trace": None}
        streamed = RunResultStreaming(**fields, _current_agent_output_schema=None)
        streamed._state = state
        result: RunResult | RunResultStreaming = streamed
    else:
        result = RunResult(**fields, _last_agent=agent, _current_turn=state._current_turn)
    result._trace_state = state._trace_state
    result._starting_agent_for_state = state._starting_agent
    result._reasoning_item_id_policy = state._reasoning_item_id_policy
    result._generated_prompt_cache_key = state._generated_prompt_cache_key
    return result


def output_of_last_item(state: RunState[Any]) -> tuple[bool, Any]:
    """Return whether a state's last item ends its run, and the final output that it then is.

    For a state whose result nobody has seen; one that cannot be told is taken as not ended.
    """
    agent, last = state._current_agent, state._generated_items[-1] if state._generated_items else None
    if agent is None or state._current_step is not None:
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
    if state._current_step is None or (data.get("current_step") or {}).get("type") != "next_step_interruption":
        return []
    stored, processed = data.get("last_processed_response") or {}, state._last_processed_response
    kept = {call_id_of(call) for call in pending_calls(state)[0]}
    lost: list[str] = []
    for group, kind in CALL_GROUPS.items():
        for entry in stored.get(group) or []:
            tool, call = entry.get(kind) or {}, entry.get("tool_call") or {}
            if call_id_of(call) not in kept:
                lost.append(str(tool.get("name") or tool.get("tool_name") or call.get("name") or kind))
    nested = {call_id_of(entry["tool_call"]): entry.get("agent_run_state") for entry in stored.get("functions") or []}
    for run in processed.functions if processed is not None else []:
        if (inner := nested.get(call_id_of(run.tool_call))) is not None and inner.get("current_step"):
            pending = peek_agent_tool_run_result(run.tool_call, scope_id=state._agent_tool_state_scope_id)
            lost += lost_calls(pending.to_state(), inner) if pending is not None else [run.function_tool.name]
    return lost


AGENTS_RELEASE.check(RunState._find_nested_approval_state, ["self", "approval_item"])
AGENTS_RELEASE.check(RunContextWrapper._resolve_approval_keys, ["approval_item"])
