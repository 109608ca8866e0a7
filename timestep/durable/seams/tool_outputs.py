# pyright: reportPrivateUsage=false
"""What the model reads of a tool's result: the SDK's own text of the value, or the text that was recorded with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents import FunctionTool
from agents.items import ItemHelpers

from timestep.durable.seams.release_check import AGENTS_RELEASE

ToolOutput = str | list[Any]
"""What the model reads: text, or a list of texts, images and files."""

_original: Any = vars(ItemHelpers)["tool_call_output_item"].__func__


def install(shown: Callable[[str, Any, ToolOutput], ToolOutput]) -> None:
    """Let `shown(call_id, output, text)` say what the model reads; may be called again, the last call holds."""

    def tool_call_output_item(cls: type, tool_call: Any, output: Any, **named: Any) -> Any:
        item = _original(cls, tool_call, output, **named)
        return item | {"output": shown(tool_call.call_id, output, _exact(item["output"]))}

    ItemHelpers.tool_call_output_item = classmethod(tool_call_output_item)  # pyright: ignore[reportAttributeAccessIssue]


def text_of_output(tool: FunctionTool, tool_call: Any, output: Any) -> ToolOutput:
    """Return what the model reads of an output when nothing else is said."""
    named = {"output_json_schema": tool.output_json_schema, "output_type_adapter": tool._output_type_adapter}
    return _exact(_original(ItemHelpers, tool_call, output, **named)["output"])


def _exact(text: ToolOutput) -> ToolOutput:
    """Return a text of a class of the caller's own, such as a `StrEnum`, as the text that it is."""
    return str.__str__(text) if isinstance(text, str) else text


AGENTS_RELEASE.check(
    ItemHelpers.tool_call_output_item, ["tool_call", "output", "output_json_schema", "output_type_adapter"]
)
