"""What is recorded of a tool's result, and what the model reads of it: the same text live and in every later turn."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from agents import FunctionTool
from agents.tool_context import ToolContext

from timestep.client.serializer import json_problem
from timestep.durable.journal.scope import CallSlot, Scope, active_scope
from timestep.durable.journal.step import Envelope
from timestep.durable.journal.values import check_size, decode_value, encode_value, has_type, is_unordered
from timestep.durable.seams import agents_sdk, tool_outputs
from timestep.durable.seams.tool_outputs import ToolOutput
from timestep.errors import ResultTooLargeError, ToolResultError

log = logging.getLogger("timestep")

HAS_RUN = "The tool has run, and what it did is done: do not call it again for the same."
LONGEST_TOLD_CHARACTERS = 4000
"""How much of the text of a result the model is told when the result itself is not kept."""


def envelope_of(
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


def _text_to_keep(output: Any, text: ToolOutput | None, tool: FunctionTool, context: ToolContext[Any]) -> Any:
    """Return the text of a result where another process would not make the same of its value, else None."""
    if not has_type(output):
        return None
    if text is None:
        raise ToolResultError(f"The result of the tool {tool.name!r} cannot be shown: its `str` failed.")
    again = tool_outputs.text_of_output(tool, context.tool_call, decode_value(output))
    return text if again != text or is_unordered(output) else None
