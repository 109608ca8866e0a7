"""What a run takes along: checked at the door, stored with the run, the same in every process."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, is_typeddict

from agents import RunConfig, RunErrorHandlers, RunState

from timestep.client import requests
from timestep.client.requests import check_counts, check_limits
from timestep.client.sessions import Session
from timestep.durable.journal.child_runs import next_run_id, parent_run_id
from timestep.durable.process.registered_agents import RegisteredAgent, register_code
from timestep.durable.process.run_configs import (
    MODEL_PROVIDER,
    code_of,
    data_of,
    given_config,
    is_served_by_default,
    with_data,
)
from timestep.durable.seams.run_state import current_agent_of
from timestep.durable.states.context import dump_context, is_typed
from timestep.durable.states.origin import Given, Origin
from timestep.durable.states.output import keep_output, load_output
from timestep.durable.states.state_json import json_of_state
from timestep.errors import InvalidInputError, NotDurableError
from timestep.ids import check_run_id, check_session_id
from timestep.models.multi_model import default_model_provider, is_default_of_the_sdk
from timestep.records import RunLimits, RunRequest
from timestep.settings import current_settings
from timestep.store.runs import StoredRun

STATE_MARK = "$run_state"
"""Key of a stored input that is a RunState."""

OUTPUT_MARK = "$output"
"""Key beside it of the final output, when the state is that of a run that has ended."""


def build_request(
    entry: RegisteredAgent,
    given: Given,
    *,
    session: Any = None,
    session_id: str | None = None,
    workflow_id: str | None = None,
    context: Any = None,
    max_turns: int | None = None,
    run_config: RunConfig | Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    stream: bool = False,
    model: str | None = None,
    limits: RunLimits | None = None,
    branch: bool = False,
    error_handlers: RunErrorHandlers[Any] | None = None,
    conversation_id: str | None = None,
    previous_response_id: str | None = None,
    auto_previous_response_id: bool = False,
) -> RunRequest:
    """Return the request of a run, all of it JSON. One from a stored snapshot claims it, except as a `branch`.

    What of the run configuration is code is registered with the agent, and named in the request.

    Raises:
        AgentAlreadyRegisteredError: the agent has other code in a field of the run configuration.
        InvalidInputError: the input, an id or a limit is malformed.
        NotDurableError: a parameter could not be found again after a crash.
    """
    check_counts(max_turns=max_turns, timeout_seconds=timeout_seconds)
    if error_handlers is not None and error_handlers is not entry.error_handlers:
        raise NotDurableError(
            "error_handlers are code that another process could not find again.",
            hint="Register them with the agent: register_agents(agent, error_handlers=...).",
        )
    stored_session = _session_id(session, session_id)
    at_provider = _at_provider(
        given,
        session_id=stored_session,
        conversation_id=conversation_id,
        previous_response_id=previous_response_id,
        auto_previous_response_id=auto_previous_response_id,
    )
    config = given_config(run_config)
    code = code_of(config)
    request = RunRequest(
        run_id=next_run_id() if workflow_id is None else check_run_id(workflow_id),
        agent=entry.agent.name,
        input_items=_stored_input(given, context_type=entry.context_type),
        session_id=stored_session,
        context=_context(entry, context),
        max_turns=max_turns,
        run_config=data_of(config, besides=entry.run_config),
        code=sorted(code),
        timeout_seconds=timeout_seconds,
        stream=stream,
        model=model,
        max_turns_per_segment=current_settings().max_turns_per_segment,
        limits=check_limits(limits),
        resumes_snapshot=None if branch else given.snapshot_here,
        parent_run_id=parent_run_id(),
        **at_provider,
    )
    register_code(entry.agent.name, code)
    return request


def take_code(entry: RegisteredAgent, run_config: RunConfig | Mapping[str, Any] | None) -> None:
    """Register what of a run configuration is code with the agent, for a run that goes on with what it was given.

    Raises:
        AgentAlreadyRegisteredError: the agent has other code in a field.
    """
    register_code(entry.agent.name, code_of(given_config(run_config)))


def missing_code(entry: RegisteredAgent, code: Iterable[str], model: str | None) -> list[str]:
    """Return the fields of code that a run needs and this process does not have; `model` is that of the run.

    A model provider is not missed where the default one has the models by their names.
    """
    missing = [name for name in code if name not in entry.likenesses]
    if missing == [MODEL_PROVIDER] and is_served_by_default(entry.agent, model):
        return []
    return missing


def check_input(input_items: Any) -> Any:
    """Return an input that is no RunState as JSON; see `timestep.client.requests.check_input`."""
    return requests.check_input(input_items, kinds="text, a list of items or a RunState")


def given_of_stored_state(state: RunState[Any], stored: Mapping[str, Any]) -> Given:
    """Return the state of a run's stored input, and that its run has ended and with what output, if it has."""
    if OUTPUT_MARK not in stored:
        return Given(input=state)
    agent = current_agent_of(state)
    output = load_output(stored[OUTPUT_MARK], agent.output_type if agent is not None else None)
    return Given(input=state, origin=Origin(is_final=True, output=output))


def run_config_of(entry: RegisteredAgent, stored: StoredRun) -> RunConfig:
    """Return the RunConfig of a run: the registered one, with the code that it needs and what was stored on top.

    The trace id comes from the run id, so that every segment and every attempt is one trace.
    """
    request, run = stored.request, stored.run
    config = entry.run_config if entry.run_config is not None else RunConfig(nest_handoff_history=False)
    code = {name: entry.code[name] for name in request.code if name in entry.code}
    config = with_default_provider(with_data(dataclasses.replace(config, **code), request.run_config))
    if request.model is not None:
        config = dataclasses.replace(config, model=request.model)
    digest = hashlib.sha256(run.run_id.encode()).hexdigest()[:32]
    return dataclasses.replace(
        config,
        trace_id=config.trace_id or f"trace_{digest}",
        group_id=config.group_id or run.session_id or run.run_id,
    )


def with_default_provider(config: RunConfig) -> RunConfig:
    """Return a RunConfig whose models are found by Timestep's default provider, unless it names its own."""
    if not is_default_of_the_sdk(config.model_provider):
        return config
    return dataclasses.replace(config, model_provider=default_model_provider())


def _stored_input(given: Given, *, context_type: type | None) -> Any:
    """Return the input of a run as it is stored: as `check_input` does, or `{"$run_state": ...}`."""
    if not isinstance(given.input, RunState):
        return check_input(given.input)
    state, ended = given.input, {}
    if given.ended is not None:
        agent = current_agent_of(state)
        ended = {OUTPUT_MARK: keep_output(given.ended.output, agent.output_type if agent is not None else None)}
    return {STATE_MARK: json_of_state(state, context_type=context_type), **ended}


def _at_provider(given: Given, *, session_id: str | None, **fields: Any) -> dict[str, Any]:
    """Return what says where the model's provider has the history, checked."""
    named = [name for name, value in fields.items() if value]
    for name in ("conversation_id", "previous_response_id"):
        value = fields[name]
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise InvalidInputError(f"{name} is an id of the model's provider, not {value!r}.")
    if named and session_id is not None:
        raise InvalidInputError(
            f"{named[0]} and the session {session_id!r} are two places of one history.",
            hint="Leave one of them out.",
        )
    if named and isinstance(given.input, RunState):
        raise InvalidInputError(
            f"{named[0]} is given with a RunState, which says itself where its history is.", hint="Leave it out."
        )
    return {**fields, "auto_previous_response_id": bool(fields["auto_previous_response_id"])}


def _session_id(session: Any, session_id: str | None) -> str | None:
    if session is None:
        session = session_id
    if session is None:
        return None
    if isinstance(session, str):
        return check_session_id(session)
    if isinstance(session, Session):
        return session.session_id
    raise NotDurableError(
        f"The session is a {type(session).__name__}, which another process could not find again.",
        hint="Use `timestep.Session(...)`, or name a way to make it: "
        "`register_agents(agent, session_factory=lambda session_id: ...)` and pass the session id as text.",
    )


def _context(entry: RegisteredAgent, context: Any) -> Any:
    name = type(context).__qualname__
    hint = f"Pass JSON-able data, or register its class: register_agents(agent, context_type={name})."
    if context is not None and entry.context_type is not None:
        if not isinstance(context, dict if is_typeddict(entry.context_type) else entry.context_type):
            raise InvalidInputError(
                f"The context is a {name}; the agent {entry.agent.name!r} is registered with "
                f"context_type={entry.context_type.__qualname__}."
            )
        return dump_context(context, context_type=entry.context_type, hint=hint)
    if is_typed(context):
        raise NotDurableError(f"The context is a {name}, which another process could not build again.", hint=hint)
    return dump_context(context, context_type=None, hint=hint)
