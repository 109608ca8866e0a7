"""What of a RunConfig is data, and is stored with a run, and what is code, and is registered with the agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from agents import Agent, Model, ModelProvider, ModelSettings, RunConfig
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from timestep.durable.process.agent_definition import reachable_agents
from timestep.errors import InvalidInputError
from timestep.models.model_chain import SEPARATOR
from timestep.models.multi_model import default_model_provider, is_default_of_the_sdk
from timestep.store.json_text import dump_json

MODEL_PROVIDER = "model_provider"
"""The field of a RunConfig that an executor may do without: its default provider may have the models."""

_MODEL_SETTINGS: TypeAdapter[ModelSettings] = TypeAdapter(ModelSettings)
_JSON = (
    "model",
    "nest_handoff_history",
    "tracing_disabled",
    "trace_include_sensitive_data",
    "workflow_name",
    "trace_id",
    "group_id",
    "trace_metadata",
    "reasoning_item_id_policy",
    "tool_not_found_behavior",
    "tool_name_collision_policy",
    "output_guardrail_blocked_message",
)
_RECORDS = ("session_settings", "tool_execution")
"""Fields that are dataclasses of plain values; a RunConfig makes them of a dict too."""

_CODE: Any = object()
"""Instead of the JSON of a field: it has none."""


def given_config(given: RunConfig | Mapping[str, Any] | None) -> RunConfig | None:
    """Return a run configuration that a caller gave.

    Raises:
        InvalidInputError: it has a field that there is not.
    """
    if not isinstance(given, Mapping):
        return given
    unknown = set(given) - {field.name for field in dataclasses.fields(RunConfig)}
    if unknown:
        raise InvalidInputError(f"run_config has no field {sorted(unknown)[0]!r}.")
    return RunConfig(**dict(given))


def code_of(config: RunConfig | None) -> dict[str, Any]:
    """Return the fields of a run configuration that are code, where they are not the SDK's defaults."""
    return {name: value for name, value in _set_fields(config).items() if _data(name, value) is _CODE}


def data_of(config: RunConfig | None, *, besides: RunConfig | None = None) -> dict[str, Any]:
    """Return the fields that are data, as JSON, where they are neither the SDK's defaults nor those of `besides`."""
    given = {
        name: _data(name, value)
        for name, value in _set_fields(config).items()
        if besides is None or not is_same(value, getattr(besides, name))
    }
    return {name: data for name, data in given.items() if data is not _CODE}


def with_data(config: RunConfig, stored: Mapping[str, Any]) -> RunConfig:
    """Return a run configuration with the JSON of `data_of` on top."""
    values = dict(stored)
    if "model_settings" in values:
        values["model_settings"] = _MODEL_SETTINGS.validate_python(values["model_settings"])
    return dataclasses.replace(config, **values)


def is_served_by_default(agent: Agent[Any], model: str | None) -> bool:
    """Whether the default provider of this process has every model that a run asks for, by its name.

    `model` is that of the run; without one each agent has its own. An agent without a model gets whatever a provider
    takes for its own, and no other provider has that by name.
    """
    named: Iterable[Any] = [model] if model is not None else [each.model for each in reachable_agents(agent)]
    return all(isinstance(each, Model) or (isinstance(each, str) and _has_model(each)) for each in named)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of a field are one, or are equal; the default providers are one."""
    if one is other:
        return True
    if isinstance(one, ModelProvider) and isinstance(other, ModelProvider):
        defaults = default_model_provider()
        return all(each is defaults or is_default_of_the_sdk(each) for each in (one, other))
    return type(one) is type(other) and bool(one == other)


def _set_fields(config: RunConfig | None) -> dict[str, Any]:
    """Return the fields that differ from the defaults."""
    if config is None:
        return {}
    default = RunConfig()
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(RunConfig)}
    return {name: value for name, value in values.items() if not is_same(value, getattr(default, name))}


def _data(name: str, value: Any) -> Any:
    """Return the value of a field as JSON, or `_CODE`."""
    if name == "model_settings":
        return _data_of_model_settings(value)
    data = dataclasses.asdict(value) if name in _RECORDS else value
    return data if name in (*_JSON, *_RECORDS) and _is_json(data) else _CODE


def _data_of_model_settings(settings: ModelSettings) -> Any:
    if settings.retry is not None and settings.retry.policy is not None:
        return _CODE
    try:
        return _MODEL_SETTINGS.dump_python(settings, mode="json", exclude_none=True)
    except PydanticSerializationError:
        return _CODE


def _is_json(value: Any) -> bool:
    try:
        dump_json(value)
    except InvalidInputError:
        return False
    return True


def _has_model(name: str) -> bool:
    return any(_is_found(part.strip()) for part in name.split(SEPARATOR))


def _is_found(name: str) -> bool:
    try:
        default_model_provider().get_model(name)
    except Exception:  # noqa: BLE001 - whatever a user's provider raises, it does not have the model
        return False
    return True
