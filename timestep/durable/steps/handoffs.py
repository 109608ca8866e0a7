"""Handoffs as steps: the callback of a handoff runs once."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from timestep.durable.journal.context_step import run_step_on_context
from timestep.durable.journal.scope import CallSlot, Scope, active_scope
from timestep.durable.journal.step import Envelope, value_of
from timestep.durable.seams import agents_sdk
from timestep.words import HANDOFF


async def execute_handoffs(**named: Any) -> Any:
    """Execute the first handoff of a turn; its `on_invoke_handoff` is the step `handoff`."""
    scope = active_scope()
    if scope is None:
        return await agents_sdk.execute_handoffs(**named)
    first, *others = named["run_handoffs"]
    slot = scope.slot_of(first.tool_call.call_id, first)
    handoff = copy.copy(first.handoff)
    handoff.on_invoke_handoff = _durable(scope, slot, first.handoff)
    runs: Any = [dataclasses.replace(first, handoff=handoff), *others]
    changed: dict[str, Any] = named | {"run_handoffs": runs}
    return await agents_sdk.execute_handoffs(**changed)


def _durable(scope: Scope, slot: CallSlot, handoff: Any) -> Any:
    async def on_invoke_handoff(context: Any, arguments: str | None = None) -> Any:
        target: Any = None

        async def body() -> Envelope:
            nonlocal target
            target = await handoff.on_invoke_handoff(context, arguments)
            return {"ok": target.name}

        reservation = slot.calls.popleft() if slot.calls else scope.reserve()
        name = scope.step_name(HANDOFF, handoff.tool_name, slot.key)
        envelope = await run_step_on_context(scope, reservation, name, body, context=context.context)
        value_of(envelope)
        if target is None:
            target = agents_sdk.handoff_target(handoff)
        if target is None:  # a hand-made Handoff does not name its agent: its callback is asked again on a replay
            target = await handoff.on_invoke_handoff(context, arguments)
        return target

    return on_invoke_handoff


REPLACES = (execute_handoffs,)
