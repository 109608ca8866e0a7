"""What an agent asks for, as the body of Ollama's `/api/chat`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from agents import AgentOutputSchemaBase, FunctionTool, Handoff, ModelSettings, Tool, UserError
from agents.model_settings import MCPToolChoice

from timestep.models.to_ollama import Message, messages_of

Json = Any

TOP_LEVEL = frozenset(("keep_alive", "think", "format", "truncate", "shift", "logprobs", "top_logprobs"))
"""What of `ModelSettings.extra_args` is a field of the request; everything else is an option of the model."""

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "max_tokens": "num_predict",
}
_UNSUPPORTED = (
    "truncation",
    "verbosity",
    "metadata",
    "prompt_cache_retention",
    "prompt_cache_options",
    "response_include",
    "context_management",
)
_EFFORTS: dict[str | None, str | bool] = {
    None: False,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


@dataclass(frozen=True, kw_only=True)
class Body:
    """The body of a request, and what it cannot say.

    `must_call` are the tools of which the answer has to call one. `schema` is that of the output while tools may be
    called: Ollama's `format` would keep the model from calling any, so the schema stands in the instructions.
    """

    fields: dict[str, Json]
    ignored: list[str] = field(default_factory=list)
    must_call: frozenset[str] = frozenset()
    schema: AgentOutputSchemaBase | None = None

    def with_format(self) -> dict[str, Json]:
        """Return the body that asks for the output alone, held by `format`."""
        assert self.schema is not None
        kept = {key: value for key, value in self.fields.items() if key != "tools"}
        return kept | {"format": self.schema.json_schema()}


def body_of(
    model: str,
    *,
    system_instructions: str | None,
    items: str | Sequence[Any],
    settings: ModelSettings,
    tools: Sequence[Tool],
    handoffs: Sequence[Handoff[Any, Any]],
    output_schema: AgentOutputSchemaBase | None,
) -> Body:
    """Return the body of a model call.

    Raises:
        UserError: a hosted tool, or a tool choice that Ollama has no way to take.
    """
    converted = messages_of(items, system_instructions)
    offered, must_call = _offered([*map(_tool, tools), *map(_handoff, handoffs)], settings.tool_choice)
    messages = [*converted.messages]
    fields: dict[str, Json] = {"model": model, "messages": messages}
    has_schema = output_schema is not None and not output_schema.is_plain_text()
    if offered:
        fields["tools"] = offered
        if must_call:
            messages.append(_instruction("Answer by calling a tool: " + " or ".join(sorted(must_call)) + "."))
        elif has_schema:
            messages.insert(_after_instructions(messages), _schema_instruction(output_schema))
    elif has_schema:
        assert output_schema is not None
        fields["format"] = output_schema.json_schema()
    _add_settings(fields, settings)
    return Body(
        fields=fields,
        ignored=[*_ignored(settings), *(f"{kind} in the history" for kind in sorted(converted.lost))],
        must_call=must_call,
        schema=output_schema if offered and has_schema and not must_call else None,
    )


def think_of(settings: ModelSettings) -> str | bool | None:
    """Return Ollama's `think` of the reasoning effort; None leaves it to the model."""
    reasoning = settings.reasoning
    if reasoning is None or "effort" not in reasoning.model_fields_set:
        return None
    return _EFFORTS.get(reasoning.effort, "high")


def _add_settings(fields: dict[str, Json], settings: ModelSettings) -> None:
    options = {name: getattr(settings, field) for field, name in _OPTIONS.items()}
    if (think := think_of(settings)) is not None:
        fields["think"] = think
    if settings.top_logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
    for name, value in (settings.extra_args or {}).items():
        if name in TOP_LEVEL:
            fields[name] = value
        elif name == "options" and isinstance(value, Mapping):
            options |= cast("Mapping[str, Json]", value)
        else:
            options[name] = value
    if isinstance(settings.extra_body, Mapping):
        extra = dict(cast("Mapping[str, Json]", settings.extra_body))
        options |= extra.pop("options", None) or {}
        fields |= extra
    if isinstance(stop := options.get("stop"), str):
        options["stop"] = [stop]  # one text is enough for OpenAI; Ollama wants a list
    if options := {name: value for name, value in options.items() if value is not None}:
        fields["options"] = options


def _offered(tools: list[dict[str, Json]], choice: Json) -> tuple[list[dict[str, Json]], frozenset[str]]:
    """Return the tools that the model may call, and those of which it has to call one."""
    if isinstance(choice, MCPToolChoice):
        raise UserError("Ollama cannot be told to call a tool of one MCP server: MCPToolChoice is not supported.")
    if choice == "none":
        return [], frozenset()
    if choice in (None, "auto"):
        return tools, frozenset()
    names = {each["function"]["name"] for each in tools}
    if choice == "required" and names:
        return tools, frozenset(names)
    if choice not in names:
        known = ", ".join(sorted(names)) or "none"
        raise UserError(f"tool_choice {choice!r} names no tool of the agent; its tools are: {known}.")
    return [each for each in tools if each["function"]["name"] == choice], frozenset((choice,))


def _tool(tool: Tool) -> dict[str, Json]:
    if not isinstance(tool, FunctionTool):
        raise UserError(f"Ollama has no hosted tools; {tool.name!r} ({type(tool).__name__}) is one.")
    return _function(tool.name, tool.description, tool.params_json_schema)


def _handoff(handoff: Handoff[Any, Any]) -> dict[str, Json]:
    return _function(handoff.tool_name, handoff.tool_description, handoff.input_json_schema)


def _function(name: str, description: str, parameters: dict[str, Json]) -> dict[str, Json]:
    schema = parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": name, "description": description or "", "parameters": schema}}


def _instruction(text: str) -> Message:
    return {"role": "system", "content": text}


def _schema_instruction(schema: AgentOutputSchemaBase | None) -> Message:
    assert schema is not None
    text = json.dumps(schema.json_schema(), ensure_ascii=False)
    return _instruction(
        f"Call tools as you need them. Write your last answer as JSON of this schema, and no more: {text}"
    )


def _after_instructions(messages: list[Message]) -> int:
    return next((place for place, each in enumerate(messages) if each["role"] != "system"), len(messages))


def _ignored(settings: ModelSettings) -> list[str]:
    found = [name for name in _UNSUPPORTED if getattr(settings, name) is not None]
    found += ["parallel_tool_calls=False"] if settings.parallel_tool_calls is False else []
    found += ["store=True"] if settings.store else []
    reasoning = settings.reasoning
    if reasoning is not None:
        set_fields = sorted(name for name in reasoning.model_fields_set if getattr(reasoning, name) is not None)
        found += [f"reasoning.{name}" for name in set_fields if name != "effort"]
    return found
