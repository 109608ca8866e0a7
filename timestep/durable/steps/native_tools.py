"""Native local tools as steps: shell, local shell, custom tools, apply_patch, computer.

The SDK runs them outside the choke point of function tools. Each call gets a short-lived copy of its tool whose
executor is the step; the agent's own tool is not touched.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
from collections.abc import Callable
from typing import Any

from agents.editor import ApplyPatchResult
from agents.tool import ShellCommandOutput, ShellResult
from pydantic import TypeAdapter

from timestep.durable.journal.scope import CallSlot, Scope, active_scope
from timestep.durable.journal.step import Envelope, value_of
from timestep.durable.journal.values import decode_value, encode_value
from timestep.durable.seams import agents_sdk
from timestep.durable.seams.sdk_calls import call_id_of, field_of
from timestep.durable.steps.tool_call import AskedCall, run_call
from timestep.durable.steps.tool_result import told, with_note
from timestep.durable.values.keeping import is_plain
from timestep.durable.values.registered_types import register_serializer
from timestep.errors import ToolResultError

log = logging.getLogger("timestep")


def register_result_types() -> None:
    """Let the results of the SDK's native tools be stored."""
    for kind in (ShellResult, ShellCommandOutput, ApplyPatchResult):
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        register_serializer(
            kind,
            name=f"agents.{kind.__name__}",
            load=adapter.validate_python,
            dump=lambda value, adapter=adapter: adapter.dump_python(value, mode="json"),
        )


async def shell_execute(**named: Any) -> Any:
    """Execute a shell call; the run of its executor is the step."""
    return await _execute(agents_sdk.shell_execute, "shell_tool", "executor", named)


async def local_shell_execute(**named: Any) -> Any:
    """Execute a local shell call; the run of its executor is the step."""
    return await _execute(agents_sdk.local_shell_execute, "local_shell_tool", "executor", named)


async def custom_execute(**named: Any) -> Any:
    """Execute a custom tool call; its body is the step."""
    return await _execute(agents_sdk.custom_execute, "custom_tool", "on_invoke_tool", named)


async def apply_patch_execute(**named: Any) -> Any:
    """Execute an apply_patch call; each operation of the editor is a step."""
    scope = active_scope()
    if scope is None:
        return await agents_sdk.apply_patch_execute(**named)
    call = named["call"]
    slot = scope.slot_of(call_id_of(call.tool_call), call)
    tool = copy.copy(call.apply_patch_tool)
    tool.editor = _DurableEditor(tool.editor, scope, slot, tool.name, call, named)
    return await agents_sdk.apply_patch_execute(**named | {"call": dataclasses.replace(call, apply_patch_tool=tool)})


async def computer_capture(computer: Any, tool_call: Any) -> Any:
    """Execute the actions of a computer call and take the screenshot, as one step."""
    scope = active_scope()
    if scope is None:
        return await agents_sdk.computer_capture(computer, tool_call)
    slot = scope.slot_of(call_id_of(tool_call), tool_call)
    return await _effect(
        scope,
        slot,
        lambda: agents_sdk.computer_capture(computer, tool_call),
        tool="computer",
        call=tool_call,
        agent="",
        context=None,
    )


class _DurableEditor:
    """An editor whose operations are steps, named in the order in which the SDK asks for them."""

    def __init__(self, editor: Any, scope: Scope, slot: CallSlot, tool: str, call: Any, named: dict[str, Any]) -> None:
        self.editor, self.scope, self.slot, self.tool = editor, scope, slot, tool
        self.call, self.named, self.count = call, named, 0

    async def create_file(self, operation: Any) -> Any:
        return await self._step(self.editor.create_file, operation)

    async def update_file(self, operation: Any) -> Any:
        return await self._step(self.editor.update_file, operation)

    async def delete_file(self, operation: Any) -> Any:
        return await self._step(self.editor.delete_file, operation)

    async def _step(self, function: Callable[[Any], Any], operation: Any) -> Any:
        self.count += 1
        key = self.slot.key if self.count == 1 else f"{self.slot.key}+{self.count}"
        slot = CallSlot(key=key, calls=self.slot.calls)
        return await _effect(
            self.scope,
            slot,
            lambda: function(operation),
            tool=self.tool,
            call=self.call.tool_call,
            agent=self.named["agent"].name,
            context=self.named["context_wrapper"].context,
        )


async def _execute(execute: Callable[..., Any], tool_field: str, executor_field: str, named: dict[str, Any]) -> Any:
    scope = active_scope()
    if scope is None:
        return await execute(**named)
    call = named["call"]
    original = getattr(call, tool_field)
    executor = getattr(original, executor_field)
    if executor is None:  # runs at the provider
        return await execute(**named)
    slot = scope.slot_of(call_id_of(call.tool_call), call)

    async def durable_executor(*arguments: Any) -> Any:
        return await _effect(
            scope,
            slot,
            lambda: executor(*arguments),
            tool=original.name,
            call=call.tool_call,
            agent=named["agent"].name,
            context=named["context_wrapper"].context,
            is_text=tool_field == "custom_tool",
        )

    tool = copy.copy(original)
    setattr(tool, executor_field, durable_executor)
    return await execute(**named | {"call": dataclasses.replace(call, **{tool_field: tool})})


async def _effect(
    scope: Scope,
    slot: CallSlot,
    function: Callable[[], Any],
    *,
    tool: str,
    call: Any,
    agent: str,
    context: Any,
    is_text: bool = False,
) -> Any:
    async def body() -> Envelope:
        result = function()
        if inspect.isawaitable(result):
            result = await result
        if is_text and not is_plain(result):  # the SDK makes a text of it, here as well as there
            result = str(result)
        try:
            return {"ok": encode_value(result, what=f"the tool {tool!r}")}
        except ToolResultError as error:
            log.warning("%s Run %s, call %s.", error.message, scope.segment.run_id, slot.key)
            return {"ok": told(error, _text_of(result))}

    envelope = await run_call(
        scope,
        slot,
        AskedCall(tool=tool, call_id=call_id_of(call), arguments=_arguments(call), agent=agent, context=context),
        body,
    )
    return _noted(decode_value(value_of(envelope)), envelope.get("note"))


def _noted(result: Any, note: str | None) -> Any:
    """Return the result of a native tool with a note for the model."""
    if note is None:
        return result
    if isinstance(result, ShellResult):
        return dataclasses.replace(result, output=[*result.output, ShellCommandOutput(stdout=note)])
    if isinstance(result, ApplyPatchResult):
        return dataclasses.replace(result, output=with_note(result.output or "", note))
    return with_note(str(result), note)


def _text_of(result: Any) -> str | None:
    try:
        return str(result)
    except Exception:  # noqa: BLE001 - whatever a user's class raises, it has no text
        return None


def _arguments(call: Any) -> str:
    for name in ("arguments", "input", "action", "actions", "operation"):
        value = field_of(call, name)
        if isinstance(value, str):
            return value
        if value is not None:
            return TypeAdapter(Any).dump_json(value).decode()
    return ""


REPLACES = (shell_execute, local_shell_execute, custom_execute, apply_patch_execute, computer_capture)
