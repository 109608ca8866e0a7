"""The JSON of a RunState with all that the SDK's own loses: its context, and what its tools returned.

The context is the JSON of its registered type, or a tree. What a tool returned stands beside the SDK's own form of it,
under `timestep_output`, where that form is not the value itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from agents import RunState
from agents.items import ToolCallOutputItem

from timestep.durable.seams import run_state
from timestep.durable.seams.sdk_calls import call_id_of
from timestep.durable.states.context import dump_current_context
from timestep.durable.values.keeping import STRUCTURE, keep, restore
from timestep.durable.values.structure import TYPE_MARK, NotKept
from timestep.errors import InvalidInputError, JournalFormatError
from timestep.store.json_text import dump_json

OUTPUT_KEY = "timestep_output"
_OUTPUT_ITEM = "tool_call_output_item"


def json_of_state(state: RunState[Any], *, context_type: type | None) -> dict[str, Any]:
    """Return a RunState as JSON of which `load_state` makes the same state."""

    def as_mapping(context: Any) -> Mapping[str, Any]:
        data = dump_current_context(context, context_type=context_type)
        return data if isinstance(data, Mapping) else {TYPE_MARK: STRUCTURE, "value": data}

    data = state.to_json(context_serializer=as_mapping)
    for each in _states_of(data):
        if each["context"]["context_meta"]["serialized_via"] == "mapping":  # the SDK has not asked
            each["context"]["context"] = as_mapping(each["context"]["context"])
    add_outputs(data, state)
    try:
        dump_json(data)
    except InvalidInputError:
        return _readable(data)
    return data


def add_outputs(data: dict[str, Any], state: RunState[Any]) -> None:
    """Put what tools returned beside the SDK's form of it in the JSON of a state, and text where that is no JSON."""
    for group, items in run_state.items_by_group(state).items():
        outputs = [item for item in data.get(group) or () if item["type"] == _OUTPUT_ITEM]
        for item, stored in zip(
            (each for each in items if isinstance(each, ToolCallOutputItem)), outputs, strict=False
        ):
            try:
                kept = keep(item.output, name="output")
            except NotKept:
                kept = None
            if isinstance(kept, dict) and TYPE_MARK in kept:
                stored[OUTPUT_KEY] = kept
            stored["output"] = _readable(stored["output"])


def give_outputs_back(state: RunState[Any], data: Mapping[str, Any]) -> None:
    """Give the items of a state, which is made of `data`, what their tools returned."""
    for group, items in run_state.items_by_group(state).items():
        stored = iter([item for item in data.get(group) or () if item["type"] == _OUTPUT_ITEM])
        for item in items:
            if not isinstance(item, ToolCallOutputItem):
                continue
            call = call_id_of(item.raw_item)
            found = next((each for each in stored if call_id_of(each["raw_item"]) == call), {})
            if OUTPUT_KEY in found:
                with contextlib.suppress(JournalFormatError):  # the model has its text; only the program misses it
                    item.output = restore(found[OUTPUT_KEY])


def _states_of(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the JSON of a state and of the pending runs of its agent-tools."""
    yield data
    for function in (data.get("last_processed_response") or {}).get("functions") or ():
        if function.get("agent_run_state"):
            yield from _states_of(function["agent_run_state"])


def _readable(part: Any) -> Any:
    """Return JSON with text in the place of what JSON does not know: the SDK leaves it in outputs for people."""
    if isinstance(part, Mapping):
        return {str(key): _readable(value) for key, value in cast("Mapping[Any, Any]", part).items()}
    if isinstance(part, (list, tuple)):
        return [_readable(value) for value in cast("list[Any]", part)]
    if part is None or isinstance(part, (str, bool, int)) or (isinstance(part, float) and math.isfinite(part)):
        return part
    return str(part)
