# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""Every private name of the Agents SDK that Timestep uses, checked when this module is imported.

The SDK has no public place to stand between its loop and an effect, so `install` replaces a few of its functions,
once for the process. Each replacement passes straight through outside a durable run. Agents, tools and RunStates
are never cloned or changed. Pinned to `openai-agents>=0.24,<0.25`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import agents._run_state_agent_identity as sdk_agent_identity
import agents.mcp.util as sdk_mcp
import agents.run_internal.agent_tool_configuration as sdk_tool_configuration
import agents.run_internal.guardrails as sdk_guardrails
import agents.run_internal.model_retry as sdk_model_retry
import agents.run_internal.run_loop as sdk_run_loop
import agents.run_internal.tool_actions as sdk_tool_actions
import agents.run_internal.tool_execution as sdk_tool_execution
import agents.run_internal.turn_resolution as sdk_turn_resolution
import agents.run_state as sdk_run_state
import agents.tool as sdk_tool
from agents import Agent, FunctionTool, Model, RunConfig, RunResult, RunResultStreaming, RunState, Tool
from agents.agent_tool_state import peek_agent_tool_run_result
from agents.items import ItemHelpers, MessageOutputItem, ToolApprovalItem, ToolCallOutputItem
from agents.models.chatcmpl_stream_handler import ChatCmplStreamHandler
from agents.result import RunResultBase
from agents.run import AgentRunner, set_default_agent_runner
from agents.run_context import RunContextWrapper
from agents.run_internal.run_steps import NextStepRunAgain

FunctionToolResult = sdk_tool._FunctionToolInvocationResult
ToolOutputGuardrailsResult = sdk_tool_execution._ToolOutputGuardrailExecutionResult

get_model = sdk_run_loop.get_model
get_model_settings = sdk_run_loop.get_model_settings
get_output_schema = sdk_run_loop.get_output_schema
get_response_with_retry = sdk_model_retry.get_response_with_retry
stream_response_with_retry = sdk_model_retry.stream_response_with_retry
evaluate_retry = sdk_model_retry._evaluate_retry
facts_of_error = sdk_model_retry._normalize_retry_error
add_failed_attempts = sdk_model_retry.apply_retry_attempt_usage
usage_of_response = sdk_run_loop._response_usage_to_usage
invoke_function_tool = sdk_tool_execution._invoke_function_tool_with_metadata
tool_failure_text = sdk_tool_execution.maybe_invoke_function_tool_failure_error_function
tool_input_guardrails = sdk_tool_execution._execute_tool_input_guardrails
tool_output_guardrails = sdk_tool_execution._execute_tool_output_guardrails
input_guardrail = sdk_guardrails.run_single_input_guardrail
output_guardrail = sdk_guardrails.run_single_output_guardrail
execute_handoffs = sdk_turn_resolution.execute_handoffs
apply_patch_operations = sdk_tool_execution.coerce_apply_patch_operations
list_mcp_tools = sdk_mcp.MCPUtil._list_tools_with_span
invoke_mcp_tool = sdk_mcp.MCPUtil.invoke_mcp_tool
shell_execute = sdk_tool_actions.ShellAction.execute
local_shell_execute = sdk_tool_actions.LocalShellAction.execute
custom_execute = sdk_tool_actions.CustomToolAction.execute
apply_patch_execute = sdk_tool_actions.ApplyPatchAction.execute
computer_capture = sdk_tool_actions.ComputerAction._execute_action_and_capture
handle_chat_stream = ChatCmplStreamHandler.handle_stream
build_agent_identity_map = sdk_agent_identity._build_agent_identity_map
observe_tools = sdk_tool_configuration._observe_tools
get_ambiguous_agent_ids = sdk_agent_identity._get_ambiguous_agent_ids


@dataclass(frozen=True, kw_only=True)
class Replacements:
    """What takes the place of the SDK's functions."""

    runner: AgentRunner
    get_model: Callable[[Agent[Any], RunConfig], Any]
    get_model_settings: Callable[[Agent[Any], RunConfig], Any]
    invoke_function_tool: Callable[..., Any]
    tool_input_guardrails: Callable[..., Any]
    tool_output_guardrails: Callable[..., Any]
    input_guardrail: Callable[..., Any]
    output_guardrail: Callable[..., Any]
    execute_handoffs: Callable[..., Any]
    list_mcp_tools: Callable[..., Any]
    invoke_mcp_tool: Callable[..., Any]
    shell_execute: Callable[..., Any]
    local_shell_execute: Callable[..., Any]
    custom_execute: Callable[..., Any]
    apply_patch_execute: Callable[..., Any]
    computer_capture: Callable[..., Any]
    handle_chat_stream: Callable[..., Any]


def install(new: Replacements) -> None:
    """Put the replacements in place; may be called again, the last call holds."""
    sdk_run_loop.get_model = new.get_model
    sdk_run_loop.get_model_settings = new.get_model_settings
    sdk_tool_execution._invoke_function_tool_with_metadata = new.invoke_function_tool
    sdk_tool_execution._execute_tool_input_guardrails = new.tool_input_guardrails
    sdk_tool_execution._execute_tool_output_guardrails = new.tool_output_guardrails
    sdk_guardrails.run_single_input_guardrail = new.input_guardrail
    sdk_guardrails.run_single_output_guardrail = new.output_guardrail
    sdk_turn_resolution.execute_handoffs = new.execute_handoffs
    _set_class_function(sdk_mcp.MCPUtil, "_list_tools_with_span", new.list_mcp_tools)
    _set_class_function(sdk_mcp.MCPUtil, "invoke_mcp_tool", new.invoke_mcp_tool)
    _set_class_function(sdk_tool_actions.ShellAction, "execute", new.shell_execute)
    _set_class_function(sdk_tool_actions.LocalShellAction, "execute", new.local_shell_execute)
    _set_class_function(sdk_tool_actions.CustomToolAction, "execute", new.custom_execute)
    _set_class_function(sdk_tool_actions.ApplyPatchAction, "execute", new.apply_patch_execute)
    _set_class_function(sdk_tool_actions.ComputerAction, "_execute_action_and_capture", new.computer_capture)
    _set_class_function(ChatCmplStreamHandler, "handle_stream", new.handle_chat_stream)
    sdk_tool_configuration._observe_tools = _observe_tools
    for module in (sdk_agent_identity, sdk_run_state):
        module._build_agent_identity_map = _build_agent_identity_map
        module._get_ambiguous_agent_ids = _get_ambiguous_agent_ids
    set_default_agent_runner(new.runner)


def add_output_property() -> None:
    """Give the SDK's results `.output`, the documented name of their final output."""
    if not hasattr(RunResultBase, "output"):
        RunResultBase.output = property(lambda self: self.final_output)  # type: ignore[attr-defined]


def note_ends_on_states(note: Callable[..., None]) -> None:
    """Call `note(state, is_final=..., output=...)` on each state that is taken of a result; may be called again."""
    for kind in (RunResult, RunResultStreaming):
        original = vars(kind)["to_state"]
        original = getattr(original, "__wrapped__", original)
        kind.to_state = _noting(original, note)


def _noting(original: Callable[[Any], RunState[Any]], note: Callable[..., None]) -> Callable[[Any], RunState[Any]]:
    @functools.wraps(original)
    def to_state(self: RunResult | RunResultStreaming) -> RunState[Any]:
        state = original(self)
        note(state, is_final=_has_ended(self, state), output=self.final_output)
        return state

    return to_state


def _has_ended(result: RunResult | RunResultStreaming, state: RunState[Any]) -> bool:
    if result.interruptions or state._current_step is not None:
        return False
    if isinstance(result, RunResult):
        return True
    was_stopped = result._cancel_mode != "none" and result.final_output is None
    return result.is_complete and result.run_loop_exception is None and not was_stopped


def is_agent_tool(tool: object) -> bool:
    """Whether a tool is an agent made into a tool with `as_tool`."""
    return isinstance(tool, FunctionTool) and tool._is_agent_tool


def agent_of_tool(tool: FunctionTool) -> Agent[Any] | None:
    """Return the agent behind an agent-tool."""
    return tool._agent_instance


def base_url_of(model: Model) -> str | None:
    """Return the URL at which a model is called, when it can be told.

    It is the model's `base_url`, that of its client (OpenAI), or of the HTTP client inside that one (Ollama).
    """
    client = getattr(model, "_client", None)
    urls = (getattr(each, "base_url", None) for each in (model, client, getattr(client, "_client", None)))
    return next((str(url) for url in urls if url), None)


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


def is_between_turns(result: RunResultStreaming) -> bool:
    """Whether a streamed run was stopped between two turns, so that it can go on from there."""
    return result.final_output is None and isinstance(result.to_state()._current_step, NextStepRunAgain)


def loop_task_of(result: RunResultStreaming) -> asyncio.Task[Any]:
    """Return the background task of a streamed run."""
    task = result.run_loop_task
    assert task is not None
    return task


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
    kept = {call_key(call) for call in pending_calls(state)[0]}
    lost: list[str] = []
    for group, kind in _CALL_GROUPS.items():
        for entry in stored.get(group) or []:
            tool, call = entry.get(kind) or {}, entry.get("tool_call") or {}
            if call_key(call) not in kept:
                lost.append(str(tool.get("name") or tool.get("tool_name") or call.get("name") or kind))
    nested = {call_key(entry["tool_call"]): entry.get("agent_run_state") for entry in stored.get("functions") or []}
    for run in processed.functions if processed is not None else []:
        if (inner := nested.get(call_key(run.tool_call))) is not None and inner.get("current_step"):
            pending = peek_agent_tool_run_result(run.tool_call, scope_id=state._agent_tool_state_scope_id)
            lost += lost_calls(pending.to_state(), inner) if pending is not None else [run.function_tool.name]
    return lost


def call_key(call: Any) -> str:
    """Return the id by which a tool call is known, of the call or of its JSON."""
    value = call if isinstance(call, Mapping) else vars(call) if hasattr(call, "__dict__") else {}
    return str(value.get("call_id") or value.get("id") or "")


def handoff_target(handoff: Any) -> Agent[Any] | None:
    """Return the agent that a handoff made with `handoff(agent)` leads to."""
    reference = handoff._agent_ref
    return reference() if reference is not None else None


def custom_data_of(context: Any) -> Any:
    """Return the custom data that a tool left on its ToolContext."""
    return context._custom_data


def set_custom_data(context: Any, value: Any) -> None:
    """Put recorded custom data back onto a ToolContext."""
    context._custom_data = value


_CALL_GROUPS = {
    "functions": "tool",
    "custom_tool_actions": "custom_tool",
    "shell_actions": "shell",
    "local_shell_actions": "local_shell",
    "apply_patch_actions": "apply_patch",
    "computer_actions": "computer",
    "handoffs": "handoff",
}
"""The groups of calls in the JSON of a turn, and the key of the tool in each."""


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


def _set_class_function(owner: type, name: str, function: Callable[..., Any]) -> None:
    async def call(cls: type, *arguments: Any, **named: Any) -> Any:
        return await function(*arguments, **named)

    def stream(cls: type, *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    setattr(owner, name, classmethod(stream if inspect.isasyncgenfunction(function) else call))


def _check(function: Callable[..., Any], parameters: list[str]) -> None:
    found = list(inspect.signature(function).parameters)
    if found != parameters:
        raise ImportError(
            f"{function.__module__}.{function.__qualname__} takes {found}, expected {parameters}: this version of "
            "timestep works with openai-agents>=0.24,<0.25; install that"
        )


_check(get_model, ["agent", "run_config"])
_check(get_model_settings, ["agent", "run_config"])
_check(invoke_function_tool, ["function_tool", "context", "arguments"])
_check(tool_failure_text, ["function_tool", "context", "error"])
_check(tool_input_guardrails, ["func_tool", "tool_context", "agent", "tool_input_guardrail_results"])
_check(tool_output_guardrails, ["func_tool", "tool_context", "agent", "real_result", "tool_output_guardrail_results"])
_check(input_guardrail, ["agent", "guardrail", "input", "context"])
_check(output_guardrail, ["guardrail", "agent", "agent_output", "context"])
_check(list_mcp_tools, ["server", "run_context", "agent"])
_check(invoke_mcp_tool, ["server", "tool", "context", "input_json", "meta", "tool_display_name"])
_check(computer_capture, ["computer", "tool_call"])
_check(build_agent_identity_map, ["initial_agent"])
_check(observe_tools, ["active", "tools"])
_check(get_ambiguous_agent_ids, ["initial_agent"])
_check(sdk_agent_identity._iter_agent_graph, ["initial_agent"])
_check(RunState._find_nested_approval_state, ["self", "approval_item"])
_check(get_output_schema, ["agent"])
_check(RunContextWrapper._resolve_approval_keys, ["approval_item"])
_check(get_response_with_retry, [
    "get_response", "rewind", "retry_settings", "get_retry_advice", "previous_response_id", "conversation_id",
    "timeout", "replay_unsafe_request",
])  # fmt: skip
_check(stream_response_with_retry, [
    "get_stream", "rewind", "retry_settings", "get_retry_advice", "previous_response_id", "conversation_id",
    "timeout", "failed_retry_attempts_out", "replay_unsafe_request",
])  # fmt: skip
_check(add_failed_attempts, ["usage", "failed_attempts"])
_check(facts_of_error, ["error", "provider_advice"])
_check(evaluate_retry, [
    "error", "attempt", "max_retries", "retry_policy", "retry_backoff", "stream", "replay_unsafe_request",
    "emitted_retry_unsafe_event", "provider_advice", "previous_response_id", "conversation_id",
])  # fmt: skip
