"""The step `tool_call`: one call of a function tool, an MCP tool or a native local tool.

A call of an agent used as a tool is no step itself: its inner model turns and tool calls are steps of the run.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agents import FunctionTool, ToolTimeoutError
from agents.tool_context import ToolContext

from timestep.client.serializer import encode_error
from timestep.durable.journal.child_runs import parent_of_runs
from timestep.durable.journal.context_changes import Fingerprint, apply_changes, fingerprint, note_changes, take_changes
from timestep.durable.journal.scope import CallSlot, Scope, Shown, active_scope, entered
from timestep.durable.journal.step import Envelope, run_step, value_of
from timestep.durable.journal.step_events import StepEvents
from timestep.durable.journal.values import decode_value
from timestep.durable.process.tool_policies import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    OnCrash,
    ToolPolicy,
    policy_of,
)
from timestep.durable.seams import agents_sdk, dbos_sdk
from timestep.durable.seams.tool_threads import tool_body
from timestep.durable.seams.user_code import contained, is_contained
from timestep.durable.steps.tool_result import HAS_RUN, envelope_of
from timestep.durable.steps.unknown_outcome import settle_or_reserve
from timestep.errors import UnsupportedError
from timestep.records import ToolCall
from timestep.words import TOOL_CALL, TOOL_FINISHED, TOOL_STARTED

log = logging.getLogger("timestep")

_current: contextvars.ContextVar[ToolCall | None] = contextvars.ContextVar("timestep_tool_call", default=None)


def current_tool_call() -> ToolCall:
    """Return the call that this tool body executes.

    Raises:
        UnsupportedError: called outside a tool of a durable run.
    """
    call = _current.get()
    if call is None:
        raise UnsupportedError(
            "There is no current tool call here.",
            hint="Call `current_tool_call()` inside the body of a tool that a durable run executes.",
        )
    return call


async def invoke_function_tool(
    *, function_tool: FunctionTool, context: ToolContext[Any], arguments: str
) -> agents_sdk.FunctionToolResult:
    """Run one function tool call as a step; the SDK's timeout and failure handler are inside it."""
    scope = active_scope()
    if scope is None:
        return await agents_sdk.invoke_function_tool(function_tool=function_tool, context=context, arguments=arguments)
    slot = scope.slot_of(context.tool_call_id, context)
    if agents_sdk.is_agent_tool(function_tool):
        return await _run_sub_agent(scope, slot, function_tool, context, arguments)

    policy = policy_of(function_tool.name, function_tool)

    async def body() -> Envelope:
        result = await _invoke(function_tool, context, arguments, policy)
        return envelope_of(result, function_tool, context, scope, slot)

    envelope = await run_call(
        scope,
        slot,
        AskedCall(
            tool=function_tool.name,
            call_id=context.tool_call_id,
            arguments=arguments,
            agent=context.agent.name if context.agent else "",
            context=context.context,
        ),
        body,
        on_crash=policy.on_crash,
    )
    output = decode_value(value_of(envelope))
    agents_sdk.set_custom_data(context, decode_value(envelope.get("custom_data")))
    scope.shown[context.tool_call_id] = Shown(output=output, text=envelope.get("shown"), note=envelope.get("note"))
    return agents_sdk.FunctionToolResult(output, bool(envelope.get("is_sdk_error")))


@dataclass(frozen=True, kw_only=True)
class AskedCall:
    """A call as the model asked for it, the agent that it belongs to, and the run context that it may change."""

    tool: str
    call_id: str
    arguments: str
    agent: str
    context: Any


async def run_call(
    scope: Scope,
    slot: CallSlot,
    asked: AskedCall,
    body: Callable[[], Awaitable[Envelope]],
    *,
    on_crash: OnCrash | None = None,
) -> Envelope:
    """Run `body` as the step of a call and return the envelope; keep the call for the closing transaction.

    A repeat is harmless when the step was recorded; a body that was started and not recorded runs again with the
    same idempotency key, or not, as the tool's policy says.

    Raises:
        Halted: a person must settle first whether the call happened.
    """
    segment, key = scope.segment, scope.call_key(slot)
    step = _CallStep(
        scope=scope,
        name=scope.step_name(TOOL_CALL, asked.tool, slot.key),
        key=key,
        asked=asked,
        body=body,
        on_crash=on_crash or policy_of(asked.tool).on_crash,
    )
    reservation = slot.calls.popleft() if slot.calls else scope.reserve()
    envelope = await run_step(segment, reservation, step.name, step.run, max_bytes=2 * segment.max_result_bytes)
    make = note_changes if step.has_run else apply_changes
    at = (scope.turn_of_run, envelope.get("attempt", 1), envelope.get("finished_at") or 0.0)
    make(asked.context, envelope.get("context"), at=at, newest=segment.context_changes)
    segment.record.tool_calls.append(
        {
            "call_key": key,
            "agent": asked.agent,
            "tool": asked.tool,
            "call_id": asked.call_id,
            "arguments": asked.arguments,
            "envelope": envelope,
        }
    )
    return envelope


@dataclass(kw_only=True)
class _CallStep:
    """What the step of a call does. `has_run`: the body was started here, and has changed the context itself."""

    scope: Scope
    name: str
    key: str
    asked: AskedCall
    body: Callable[[], Awaitable[Envelope]]
    on_crash: OnCrash
    has_run: bool = False

    async def run(self) -> Envelope:
        """Execute the call, unless a person has settled how an earlier start ended, and return its envelope."""
        async with StepEvents(self.scope, self.name) as events:
            return await self._run(events)

    async def _run(self, events: StepEvents) -> Envelope:
        asked, segment = self.asked, self.scope.segment
        call = ToolCall(
            run_id=segment.run_id,
            call_id=asked.call_id,
            tool=asked.tool,
            turn=self.scope.turn,
            attempt=self.scope.attempt,
            idempotency_key=f"{segment.run_id}:{self.key}",
        )
        before, started_at = fingerprint(asked.context), time.time()
        settled = await self._settled(call, started_at) if self.on_crash != "repeat" else None
        tool, call_id = asked.tool, asked.call_id
        events.add({"type": TOOL_STARTED, "tool": tool, "call_id": call_id, "arguments": asked.arguments})
        if settled is not None:
            envelope = settled
        else:
            self.has_run = True
            envelope = await self._execute(call)
        envelope |= {"started_at": started_at, "finished_at": time.time(), "attempt": call.attempt}
        if self.has_run:
            envelope |= self._changes(before)
        events.add({"type": TOOL_FINISHED, "tool": tool, "call_id": call_id, "is_error": "error" in envelope})
        return envelope

    def _changes(self, before: Fingerprint) -> Envelope:
        """Return what the body has changed in the context, and a note for the model about what was undone."""
        changes = take_changes(before, self.asked.context)
        found: Envelope = {"context": changes.recorded} if changes.recorded else {}
        if changes.lost:
            lost, run_id = "; ".join(changes.lost.values()), self.scope.segment.run_id
            log.warning("What the tool %r put into the context was undone: %s. Run %s.", self.asked.tool, lost, run_id)
            found["note"] = f"{HAS_RUN} What it put into the context was not kept: {lost}."
        return found

    async def _settled(self, call: ToolCall, started_at: float) -> Envelope | None:
        return await settle_or_reserve(
            self.scope.segment,
            call,
            key=self.key,
            agent=self.asked.agent,
            arguments=self.asked.arguments,
            started_at=started_at,
            is_fatal=self.on_crash == "fail",
        )

    async def _execute(self, call: ToolCall) -> Envelope:
        token = _current.set(call)
        try:
            with tool_body(), parent_of_runs(call):
                return await contained(self.body)
        except Exception as error:  # noqa: BLE001 - a failing tool changes the context too
            return {"error": encode_error(error)}
        finally:
            _current.reset(token)


async def _invoke(
    tool: FunctionTool, context: ToolContext[Any], arguments: str, policy: ToolPolicy
) -> agents_sdk.FunctionToolResult:
    """Call a tool's body with the time limit and the retries of its policy; the last failure is what counts."""
    for retry in itertools.count():
        limit = asyncio.timeout(policy.timeout_seconds)
        try:
            async with limit:
                result = await _invoke_contained(tool, context, arguments)
        except TimeoutError as error:
            if not limit.expired():
                raise
            late = ToolTimeoutError(tool.name, policy.timeout_seconds or 0)
            if retry >= policy.retries:
                text = await agents_sdk.tool_failure_text(function_tool=tool, context=context, error=late)
                if text is None:
                    raise late from error
                return agents_sdk.FunctionToolResult(text, True)
        except Exception:
            if retry >= policy.retries:
                raise
        else:
            if retry >= policy.retries or not result.is_sdk_generated_error:
                return result
        await asyncio.sleep(min(FIRST_RETRY_SECONDS * 2**retry, LONGEST_RETRY_SECONDS))
    raise AssertionError("unreachable")


async def _invoke_contained(
    tool: FunctionTool, context: ToolContext[Any], arguments: str
) -> agents_sdk.FunctionToolResult:
    """Call a tool's body; one that ends with what is no Exception is a failing tool, for the model too."""
    try:
        return await agents_sdk.invoke_function_tool(
            function_tool=_contained_tool(tool), context=context, arguments=arguments
        )
    except RuntimeError as error:
        text = None
        if is_contained(error):
            text = await agents_sdk.tool_failure_text(function_tool=tool, context=context, error=error)
        if text is None:
            raise
        return agents_sdk.FunctionToolResult(text, True)


def _contained_tool(tool: FunctionTool) -> FunctionTool:
    """Return a copy of a tool for one call, whose body is contained: the SDK runs one with a time limit in a task."""

    @functools.wraps(tool.on_invoke_tool)
    async def on_invoke_tool(context: Any, arguments: str) -> Any:
        return await contained(lambda: tool.on_invoke_tool(context, arguments))

    copied = copy.copy(tool)
    copied.on_invoke_tool = on_invoke_tool
    return copied


async def _run_sub_agent(
    scope: Scope, slot: CallSlot, tool: FunctionTool, context: ToolContext[Any], arguments: str
) -> agents_sdk.FunctionToolResult:
    outer = dbos_sdk.current_context()
    with entered(scope.below(slot)):
        try:
            if slot.block is not None:
                dbos_sdk.set_context(slot.block)
            return await agents_sdk.invoke_function_tool(function_tool=tool, context=context, arguments=arguments)
        finally:
            dbos_sdk.set_context(outer)


REPLACES = (invoke_function_tool,)
