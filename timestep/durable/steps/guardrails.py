"""Guardrails as steps: input, output, tool input, tool output.

A repeat of any of them is harmless when the step was recorded; a guardrail that was started and not recorded runs
again. If several input guardrails fail, the one that finishes first is reported, as in a plain run.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailResult,
    OutputGuardrail,
    OutputGuardrailResult,
    RunContextWrapper,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailResult,
    ToolOutputGuardrailResult,
)
from agents.tool_context import ToolContext
from dbos import StepReservation
from pydantic import TypeAdapter

from timestep.durable.journal.context_step import run_step_on_context
from timestep.durable.journal.scope import Scope, active_scope
from timestep.durable.journal.step import Envelope, value_of
from timestep.durable.journal.values import Json, decode_value, encode_value
from timestep.durable.seams import agents_sdk
from timestep.errors import ToolResultError
from timestep.words import INPUT_GUARDRAIL, OUTPUT_GUARDRAIL, TOOL_INPUT_GUARDRAILS, TOOL_OUTPUT_GUARDRAILS

log = logging.getLogger("timestep")

_TOOL_OUTPUT: TypeAdapter[ToolGuardrailFunctionOutput] = TypeAdapter(ToolGuardrailFunctionOutput)


def reserve_input_guardrails(scope: Scope, guardrails: list[InputGuardrail[Any]]) -> None:
    """Draw the step ids of the input guardrails before the first turn, beside which they may run."""
    scope.guardrails = [(guardrail, scope.reserve()) for guardrail in guardrails]


async def input_guardrail(
    agent: Agent[Any], guardrail: InputGuardrail[Any], input: Any, context: RunContextWrapper[Any]
) -> InputGuardrailResult:
    """Run one input guardrail as a step."""
    scope = active_scope()
    if scope is None:
        return await agents_sdk.input_guardrail(agent, guardrail, input, context)

    async def body() -> Envelope:
        result = await agents_sdk.input_guardrail(agent, guardrail, input, context)
        return {"ok": _dump(result.output)}

    reservation, number = _input_reservation(scope, guardrail)
    name = f"{scope.path}{INPUT_GUARDRAIL}:{number}:{guardrail.get_name()}"
    envelope = await run_step_on_context(scope, reservation, name, body, context=context.context)
    return InputGuardrailResult(guardrail=guardrail, output=_load(value_of(envelope)))


async def output_guardrail(
    guardrail: OutputGuardrail[Any], agent: Agent[Any], agent_output: Any, context: RunContextWrapper[Any]
) -> OutputGuardrailResult:
    """Run one output guardrail as a step. The SDK starts them in order, and the id is drawn before the first await."""
    scope = active_scope()
    if scope is None:
        return await agents_sdk.output_guardrail(guardrail, agent, agent_output, context)
    reservation = scope.reserve()

    async def body() -> Envelope:
        result = await agents_sdk.output_guardrail(guardrail, agent, agent_output, context)
        return {"ok": _dump(result.output)}

    name = scope.step_name(OUTPUT_GUARDRAIL, str(reservation.step_id), guardrail.get_name())
    envelope = await run_step_on_context(scope, reservation, name, body, context=context.context)
    return OutputGuardrailResult(
        guardrail=guardrail, agent=agent, agent_output=agent_output, output=_load(value_of(envelope))
    )


async def tool_input_guardrails(
    *,
    func_tool: FunctionTool,
    tool_context: ToolContext[Any],
    agent: Agent[Any],
    tool_input_guardrail_results: list[ToolInputGuardrailResult],
) -> str | None:
    """Run the input guardrails of one tool call as one step; return the text that rejects the call, if any."""
    named: dict[str, Any] = {"func_tool": func_tool, "tool_context": tool_context, "agent": agent}
    run = functools.partial(agents_sdk.tool_input_guardrails, **named)
    return await _tool_guardrails(TOOL_INPUT_GUARDRAILS, run, func_tool, tool_context, tool_input_guardrail_results)


async def tool_output_guardrails(
    *,
    func_tool: FunctionTool,
    tool_context: ToolContext[Any],
    agent: Agent[Any],
    real_result: Any,
    tool_output_guardrail_results: list[ToolOutputGuardrailResult],
) -> agents_sdk.ToolOutputGuardrailsResult:
    """Run the output guardrails of one tool call as one step."""
    named: dict[str, Any] = {"func_tool": func_tool, "tool_context": tool_context, "agent": agent}
    run = functools.partial(agents_sdk.tool_output_guardrails, **named, real_result=real_result)
    return await _tool_guardrails(TOOL_OUTPUT_GUARDRAILS, run, func_tool, tool_context, tool_output_guardrail_results)


async def _tool_guardrails(
    kind: str,
    run: Callable[..., Awaitable[Any]],
    tool: FunctionTool,
    context: ToolContext[Any],
    results: list[Any],
) -> Any:
    """Run the guardrails of one kind of one tool call as one step, and return what the SDK concludes of the results."""
    found = "tool_input_guardrail_results" if kind == TOOL_INPUT_GUARDRAILS else "tool_output_guardrail_results"
    scope = active_scope()
    if scope is None or not getattr(tool, kind):
        return await run(**{found: results})

    async def body() -> Envelope:
        seen: list[Any] = []
        await _until_raised(run(**{found: seen}))
        return {"ok": [_dump_tool_output(result.output) for result in seen]}

    slot = scope.slot_of(context.tool_call_id, context)
    reserved = slot.input_guardrails if kind == TOOL_INPUT_GUARDRAILS else slot.output_guardrails
    reservation = reserved.popleft() if reserved else scope.reserve()
    name = scope.step_name(kind, tool.name, slot.key, str(reservation.step_id))
    envelope = await run_step_on_context(scope, reservation, name, body, context=context.context)
    outputs = [_load_tool_output(output) for output in value_of(envelope)]
    return await run(**{"func_tool": _replaying(tool, kind, outputs), found: results})


async def _until_raised(run: Any) -> None:
    """Run guardrails for their results; a tripwire is raised again outside the step, from the recorded results."""
    from agents import ToolInputGuardrailTripwireTriggered, ToolOutputGuardrailTripwireTriggered

    try:
        await run
    except (ToolInputGuardrailTripwireTriggered, ToolOutputGuardrailTripwireTriggered):
        return


class _Recorded:
    """Stands for a guardrail whose output is known; the SDK's own code draws the conclusions from it."""

    def __init__(self, guardrail: Any, output: ToolGuardrailFunctionOutput) -> None:
        self.guardrail, self.output = guardrail, output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guardrail, name)

    async def run(self, data: Any) -> ToolGuardrailFunctionOutput:
        return self.output


def _replaying(tool: FunctionTool, field: str, outputs: list[ToolGuardrailFunctionOutput]) -> Any:
    guardrails = getattr(tool, field)
    recorded = [_Recorded(guardrail, output) for guardrail, output in zip(guardrails, outputs, strict=False)]

    class View:
        tool_input_guardrails = recorded
        tool_output_guardrails = recorded

    return View()


def _input_reservation(scope: Scope, guardrail: InputGuardrail[Any]) -> tuple[StepReservation, int]:
    for number, (known, reservation) in enumerate(scope.guardrails):
        if known is guardrail:
            scope.guardrails[number] = (None, reservation)
            return reservation, number + 1
    return scope.reserve(), len(scope.guardrails) + 1


def _dump(output: GuardrailFunctionOutput) -> Json:
    return {"tripwire_triggered": output.tripwire_triggered, "output_info": _dump_info(output.output_info)}


def _dump_tool_output(output: ToolGuardrailFunctionOutput) -> Json:
    return {"output_info": _dump_info(output.output_info), "behavior": dict(output.behavior)}


def _load_tool_output(data: Json) -> ToolGuardrailFunctionOutput:
    return _TOOL_OUTPUT.validate_python({**data, "output_info": decode_value(data["output_info"])})


def _dump_info(info: Any) -> Json:
    """Return what a guardrail says of its decision; in the place of what would not come back, a text says why."""
    try:
        return encode_value(info, what="a guardrail", name="output_info")
    except ToolResultError as error:
        log.warning("%s", error.message)
        return error.message


def _load(data: Json) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(
        output_info=decode_value(data["output_info"]), tripwire_triggered=data["tripwire_triggered"]
    )


REPLACES = (tool_input_guardrails, tool_output_guardrails, input_guardrail, output_guardrail)
