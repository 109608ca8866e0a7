"""The public names and their signatures: what programs rely on. A change here is a change for users."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import timestep
from timestep import errors

REPOSITORY = Path(__file__).resolve().parents[2]

SIGNATURES = {
    "cleanup_dbos": "",
    "configure_dbos": "name=None, system_database_url=None, *, executor_id=None, application_version=None",
    "consume_result": "result",
    "create_scheduled_agent_workflow": (
        "crontab, agent=None, input_items=None, session=None, stream=False, result_processor=None, state_store=None, "
        "session_id=None, *, agent_id=None, name=None, timezone='UTC', context=None, max_turns=None, run_config=None, "
        "timeout_seconds=None"
    ),
    "current_tool_call": "",
    "default_result_processor": "result",
    "ensure_dbos_launched": "*, queues=None",
    "get_dbos_connection_string": "",
    "is_dbos_launched": "",
    "queue_agent_workflow": (
        "agent=None, input_items=None, session=None, stream=False, result_processor=None, state_store=None, "
        "session_id=None, queue_name=None, workflow_id=None, timeout_seconds=None, priority=None, "
        "deduplication_id=None, delay_seconds=None, *, agent_id=None, context=None, max_turns=None, run_config=None"
    ),
    "register_agents": "*agents, run_config=None, hooks=None, context_type=None, session_factory=None, replace=False",
    "register_serializer": "kind, *, dump, load, name=None",
    "run_agent": (
        "agent, run_input, session=None, stream=False, result_processor=default_result_processor, *, run_config=None, "
        "context=None, max_turns=None, hooks=None"
    ),
    "run_agent_workflow": (
        "agent=None, input_items=None, session=None, stream=False, result_processor=None, state_store=None, "
        "session_id=None, workflow_id=None, timeout_seconds=None, *, agent_id=None, context=None, max_turns=None, "
        "run_config=None, model=None"
    ),
    "stream_events": "run_id, *, offset=0",
    "RunHandle": "run_id",
    "RunStateStore": "agent, session_id=None, connection_string=None",
    "Session": "session_id=None, *, database=None",
}
FIELDS = {
    "DurableRunResult": ["final_output", "interruptions", "last_agent", "new_items", "output", "run_id", "state",
                         "status", "to_input_list", "to_state", "usage"],
    "RunHandle": ["get_result", "get_status", "get_workflow_id"],
    "RunStateStore": ["clear", "close", "load", "save"],
    "Schedule": ["context", "crontab", "name", "timezone"],
    "Session": ["add_items", "clear_session", "get_items", "pop_item", "session_id", "session_settings"],
    "ToolCall": ["attempt", "call_id", "idempotency_key", "run_id", "tool", "turn"],
}  # fmt: skip
WITHOUT_SIGNATURE = {
    "DurableRunResult",
    "InterruptionException",
    "Schedule",
    "TimestepError",
    "ToolCall",
    "__version__",
}


def signature_of(thing: object) -> str:
    """Return the parameters without their annotations."""
    parts: list[str] = []
    is_keyword_only = False
    for parameter in inspect.signature(thing).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts.append(f"*{parameter.name}")
            is_keyword_only = True
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword_only:
            parts.append("*")
            is_keyword_only = True
        default = parameter.default
        shown = getattr(default, "__name__", None) or repr(default)
        parts.append(parameter.name if default is parameter.empty else f"{parameter.name}={shown}")
    return ", ".join(parts)


def test_every_public_name_is_held_here() -> None:
    assert set(timestep.__all__) == set(SIGNATURES) | set(WITHOUT_SIGNATURE)
    assert sorted(timestep.__all__, key=str.lower) == sorted(set(timestep.__all__), key=str.lower)


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_signature_is_as_it_was(name: str) -> None:
    assert signature_of(getattr(timestep, name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_class_has_the_fields_and_methods_that_it_had(name: str) -> None:
    kind = getattr(timestep, name)
    names = {field for field in [*dir(kind), *getattr(kind, "__annotations__", {})] if not field.startswith("_")}
    assert set(FIELDS[name]) <= names


@pytest.mark.parametrize("name", sorted(set(timestep.__all__) - {"__version__"}))
def test_a_public_name_says_what_it_does(name: str) -> None:
    assert inspect.getdoc(getattr(timestep, name))


def test_every_error_is_in_the_tree_at_the_top_of_its_module() -> None:
    drawn = set(re.findall(r"\b\w+(?:Error|Exception)\b", (errors.__doc__ or "").split("```")[1]))
    classes = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert classes == drawn
    assert all(getattr(errors, name).hint for name in classes)


def test_the_version_is_that_of_the_distribution() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{timestep.__version__}"' in text


def test_there_is_no_other_public_name() -> None:
    assert dir(timestep) == sorted(timestep.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = timestep.nonsense  # type: ignore[attr-defined]
