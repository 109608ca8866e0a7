# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""Stand between the Agents SDK's loop and its effects. Every name here is necessary, and checked at import.

The SDK has no public place for that, so `install` replaces a few of its functions, once for the process. Each
replacement passes straight through outside a durable run. Agents, tools and RunStates are never cloned or changed.
What is read of a RunState is in `run_state`, what only makes the SDK faster in `agents_speed`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import agents.mcp.util as sdk_mcp
import agents.run_internal.guardrails as sdk_guardrails
import agents.run_internal.model_retry as sdk_model_retry
import agents.run_internal.run_loop as sdk_run_loop
import agents.run_internal.tool_actions as sdk_tool_actions
import agents.run_internal.tool_execution as sdk_tool_execution
import agents.run_internal.turn_resolution as sdk_turn_resolution
import agents.tool as sdk_tool
from agents import Agent, FunctionTool, Handoff, RunConfig, RunResult, RunResultStreaming, RunState
from agents.models.chatcmpl_stream_handler import ChatCmplStreamHandler
from agents.result import RunResultBase
from agents.run import AgentRunner, set_default_agent_runner
from agents.run_internal.run_steps import NextStepRunAgain
from agents.tool_context import ToolContext

from timestep.durable.seams.release_check import AGENTS_RELEASE

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


def is_between_turns(result: RunResultStreaming) -> bool:
    """Whether a streamed run was stopped between two turns, so that it can go on from there."""
    return result.final_output is None and isinstance(result.to_state()._current_step, NextStepRunAgain)


def loop_task_of(result: RunResultStreaming) -> asyncio.Task[Any]:
    """Return the background task of a streamed run."""
    task = result.run_loop_task
    assert task is not None
    return task


def handoff_target(handoff: Handoff[Any, Any]) -> Agent[Any] | None:
    """Return the agent that a handoff made with `handoff(agent)` leads to."""
    reference: Any = handoff._agent_ref
    return reference() if reference is not None else None


def custom_data_of(context: ToolContext[Any]) -> Any:
    """Return the custom data that a tool left on its ToolContext."""
    return context._custom_data


def set_custom_data(context: ToolContext[Any], value: Any) -> None:
    """Put recorded custom data back onto a ToolContext."""
    context._custom_data = value


def _set_class_function(owner: type, name: str, function: Callable[..., Any]) -> None:
    async def call(cls: type, *arguments: Any, **named: Any) -> Any:
        return await function(*arguments, **named)

    def stream(cls: type, *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    setattr(owner, name, classmethod(stream if inspect.isasyncgenfunction(function) else call))


AGENTS_RELEASE.check(get_model, ["agent", "run_config"])
AGENTS_RELEASE.check(get_model_settings, ["agent", "run_config"])
AGENTS_RELEASE.check(invoke_function_tool, ["function_tool", "context", "arguments"])
AGENTS_RELEASE.check(tool_failure_text, ["function_tool", "context", "error"])
AGENTS_RELEASE.check(tool_input_guardrails, ["func_tool", "tool_context", "agent", "tool_input_guardrail_results"])
AGENTS_RELEASE.check(
    tool_output_guardrails, ["func_tool", "tool_context", "agent", "real_result", "tool_output_guardrail_results"]
)
AGENTS_RELEASE.check(input_guardrail, ["agent", "guardrail", "input", "context"])
AGENTS_RELEASE.check(output_guardrail, ["guardrail", "agent", "agent_output", "context"])
AGENTS_RELEASE.check(list_mcp_tools, ["server", "run_context", "agent"])
AGENTS_RELEASE.check(invoke_mcp_tool, ["server", "tool", "context", "input_json", "meta", "tool_display_name"])
AGENTS_RELEASE.check(computer_capture, ["computer", "tool_call"])
for execute in (shell_execute, local_shell_execute, custom_execute, apply_patch_execute):
    AGENTS_RELEASE.check(execute, ["call"], are_all=False)  # the others are passed on as they come
AGENTS_RELEASE.check(apply_patch_operations, ["tool_call", "context_wrapper"])
AGENTS_RELEASE.check(execute_handoffs, ["run_handoffs"], are_all=False)
AGENTS_RELEASE.check(handle_chat_stream, ["require_finish_reason"], are_all=False)
AGENTS_RELEASE.check(usage_of_response, ["response_usage"])
AGENTS_RELEASE.check(get_output_schema, ["agent"])
AGENTS_RELEASE.check(get_response_with_retry, [
    "get_response", "rewind", "retry_settings", "get_retry_advice", "previous_response_id", "conversation_id",
    "timeout", "replay_unsafe_request",
])  # fmt: skip
AGENTS_RELEASE.check(stream_response_with_retry, [
    "get_stream", "rewind", "retry_settings", "get_retry_advice", "previous_response_id", "conversation_id",
    "timeout", "failed_retry_attempts_out", "replay_unsafe_request",
])  # fmt: skip
AGENTS_RELEASE.check(add_failed_attempts, ["usage", "failed_attempts"])
AGENTS_RELEASE.check(facts_of_error, ["error", "provider_advice"])
AGENTS_RELEASE.check(evaluate_retry, [
    "error", "attempt", "max_retries", "retry_policy", "retry_backoff", "stream", "replay_unsafe_request",
    "emitted_retry_unsafe_event", "provider_advice", "previous_response_id", "conversation_id",
])  # fmt: skip
