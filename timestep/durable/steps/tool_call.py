"""The step `tool_call`: one call of a function tool, an MCP tool or a native local tool.

A call of an agent used as a tool is no step itself: its inner model turns and tool calls are steps of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from agents import FunctionTool, ToolTimeoutError
from agents.tool_context import ToolContext

from timestep.client.serializer import encode_error, json_problem
from timestep.durable.journal.child_runs import parent_of_runs
from timestep.durable.journal.context_changes import apply_changes, fingerprint, note_changes, take_changes
from timestep.durable.journal.scope import CallSlot, Scope, Shown, active_scope, entered
from timestep.durable.journal.step import Envelope, run_step, value_of
from timestep.durable.journal.step_events import StepEvents
from timestep.durable.journal.values import check_size, decode_value, encode_value, has_type, is_unordered
from timestep.durable.process.tool_policies import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    OnCrash,
    ToolPolicy,
    policy_of,
)
from timestep.durable.seams import agents_sdk, dbos_sdk, tool_outputs
from timestep.durable.seams.tool_outputs import ToolOutput
from timestep.durable.seams.tool_threads import tool_body
from timestep.durable.steps.unknown_outcome import settle_or_reserve
from timestep.errors import ResultTooLargeError, ToolResultError, UnsupportedError
from timestep.records import ToolCall

log = logging.getLogger("timestep")

HAS_RUN = "The tool has run, and what it did is done: do not call it again for the same."
LONGEST_TOLD_CHARACTERS = 4000
"""How much of the text of a result the model is told when the result itself is not kept."""

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
        return _envelope_of(result, function_tool, context, scope, slot)

    envelope = await run_call(
        scope,
        slot,
        tool=function_tool.name,
        call_id=context.tool_call_id,
        arguments=arguments,
        agent=context.agent.name if context.agent else "",
        context=context.context,
        body=body,
        on_crash=policy.on_crash,
    )
    output = decode_value(value_of(envelope))
    agents_sdk.set_custom_data(context, decode_value(envelope.get("custom_data")))
    scope.shown[context.tool_call_id] = Shown(output=output, text=envelope.get("shown"), note=envelope.get("note"))
    return agents_sdk.FunctionToolResult(output, bool(envelope.get("is_sdk_error")))


def shown_output(call_id: str, output: Any, text: ToolOutput) -> ToolOutput:
    """Return what the model reads of an output of which `text` is its own: what was recorded with it, and a note."""
    scope = active_scope()
    found = scope.shown.get(call_id) if scope is not None else None
    if found is None or found.output is not output:  # a guardrail has put something else in its place
        return text
    return with_note(text if found.text is None else found.text, found.note)


def with_note(text: ToolOutput, note: str | None) -> ToolOutput:
    """Return what the model reads of a result, with a note after it."""
    if note is None:
        return text
    return f"{text}\n\n{note}" if isinstance(text, str) else [*text, {"type": "input_text", "text": note}]


def told(error: ToolResultError, text: ToolOutput | None = None) -> str:
    """Return what the model reads of a call whose result was not kept: that it has run, why, and what it returned."""
    message = f"{error.message} {HAS_RUN}"
    if not isinstance(text, str):
        return message
    text = text if len(text) <= LONGEST_TOLD_CHARACTERS else f"{text[:LONGEST_TOLD_CHARACTERS]}…"
    return f"{message} What it returned, as text: {text}"


async def run_call(
    scope: Scope,
    slot: CallSlot,
    *,
    tool: str,
    call_id: str,
    arguments: str,
    agent: str,
    context: Any,
    body: Callable[[], Awaitable[Envelope]],
    on_crash: OnCrash | None = None,
) -> Envelope:
    """Run `body` as the step of a call and return the envelope; keep the call for the closing transaction.

    A repeat is harmless when the step was recorded; a body that was started and not recorded runs again with the
    same idempotency key, or not, as the tool's policy says.

    Raises:
        Halted: a person must settle first whether the call happened.
    """
    segment = scope.segment
    call = ToolCall(
        run_id=segment.run_id,
        call_id=call_id,
        tool=tool,
        turn=scope.turn,
        attempt=segment.attempt,
        idempotency_key=f"{segment.run_id}:{scope.call_key(slot)}",
    )
    has_run = False
    name = scope.step_name("tool_call", tool, slot.key)
    on_crash = on_crash or policy_of(tool).on_crash

    async def with_events() -> Envelope:
        async with StepEvents(scope, name) as events:
            return await timed(events)

    async def timed(events: StepEvents) -> Envelope:
        nonlocal has_run
        envelope: Envelope
        before, started_at = fingerprint(context), time.time()
        if on_crash != "repeat":
            settled = await settle_or_reserve(
                segment,
                call,
                key=scope.call_key(slot),
                agent=agent,
                arguments=arguments,
                started_at=started_at,
                is_fatal=on_crash == "fail",
            )
            if settled is not None:
                events.add({"type": "tool_started", "tool": tool, "call_id": call_id, "arguments": arguments})
                events.add({"type": "tool_finished", "tool": tool, "call_id": call_id, "is_error": False})
                return settled | {"started_at": started_at, "finished_at": time.time(), "attempt": segment.attempt}
        has_run = True
        events.add({"type": "tool_started", "tool": tool, "call_id": call_id, "arguments": arguments})
        token = _current.set(call)
        try:
            with tool_body(), parent_of_runs(call):
                envelope = await body()
        except Exception as error:  # noqa: BLE001 - a failing tool changes the context too
            envelope = {"error": encode_error(error)}
        finally:
            _current.reset(token)
        envelope |= {"started_at": started_at, "finished_at": time.time(), "attempt": segment.attempt}
        changes = take_changes(before, context)
        if changes.recorded:
            envelope["context"] = changes.recorded
        if changes.lost:
            lost = "; ".join(changes.lost.values())
            log.warning("The tool %r changed the context, which was undone: %s. Run %s.", tool, lost, segment.run_id)
            envelope["note"] = f"{HAS_RUN} What it put into the context was not kept: {lost}."
        events.add({"type": "tool_finished", "tool": tool, "call_id": call_id, "is_error": "error" in envelope})
        return envelope

    reservation = slot.calls.popleft() if slot.calls else scope.reserve()
    envelope = await run_step(segment, reservation, name, with_events, max_bytes=2 * segment.max_result_bytes)
    make = note_changes if has_run else apply_changes
    at = (scope.turn_of_run, envelope.get("attempt", 1), envelope.get("finished_at") or 0.0)
    make(context, envelope.get("context"), at=at, newest=segment.context_changes)
    segment.record.tool_calls.append(
        {
            "call_key": scope.call_key(slot),
            "agent": agent,
            "tool": tool,
            "call_id": call_id,
            "arguments": arguments,
            "envelope": envelope,
        }
    )
    return envelope


def _envelope_of(
    result: agents_sdk.FunctionToolResult, tool: FunctionTool, context: ToolContext[Any], scope: Scope, slot: CallSlot
) -> Envelope:
    """Return what is recorded of a result. One that would not come back is told to the model: the call is done."""
    what, text = f"the tool {tool.name!r}", None
    try:
        with contextlib.suppress(Exception):  # of a result without a text the model is told just that
            text = tool_outputs.text_of_output(tool, context.tool_call, result.output)
        output = encode_value(result.output, what=what)
        check_size(output, limit_bytes=scope.segment.max_result_bytes, what=what)
        shown = _text_to_keep(output, text, tool, context)
    except ToolResultError as error:
        log.warning("%s Run %s, call %s.", error.message, scope.segment.run_id, slot.key)
        return {"ok": told(error, None if isinstance(error, ResultTooLargeError) else text), "is_sdk_error": True}
    envelope: Envelope = {"ok": output, "is_sdk_error": result.is_sdk_generated_error}
    if shown is not None:
        envelope["shown"] = shown
    data = agents_sdk.custom_data_of(context)
    if problem := json_problem(data):
        log.warning("The custom data of %s was not kept: %s. Run %s.", what, problem, scope.segment.run_id)
        data = None
    return envelope | {"custom_data": encode_value(data, what="custom data")}


def _text_to_keep(output: Any, text: ToolOutput | None, tool: FunctionTool, context: ToolContext[Any]) -> Any:
    """Return the text of a result where another process would not make the same of its value, else None."""
    if not has_type(output):
        return None
    if text is None:
        raise ToolResultError(f"The result of the tool {tool.name!r} cannot be shown: its `str` failed.")
    again = tool_outputs.text_of_output(tool, context.tool_call, decode_value(output))
    return text if again != text or is_unordered(output) else None


async def _invoke(
    tool: FunctionTool, context: ToolContext[Any], arguments: str, policy: ToolPolicy
) -> agents_sdk.FunctionToolResult:
    """Call a tool's body with the time limit and the retries of its policy; the last failure is what counts."""
    for retry in itertools.count():
        limit = asyncio.timeout(policy.timeout_seconds)
        invocation = agents_sdk.invoke_function_tool(function_tool=tool, context=context, arguments=arguments)
        try:
            async with limit:
                result = await invocation
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
