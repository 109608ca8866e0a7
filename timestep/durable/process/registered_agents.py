"""Agents by name: what an executor needs to find again that cannot be stored with a run."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents import Agent, RunConfig, RunErrorHandlers, RunHooks

from timestep.durable.process.agent_definition import define_agent
from timestep.durable.process.kept_types import check_context_type, check_results
from timestep.durable.process.likeness import Likeness
from timestep.durable.process.run_configs import code_of
from timestep.errors import (
    AgentAlreadyRegisteredError,
    AgentNotRegisteredError,
    InvalidInputError,
    UnsupportedError,
)
from timestep.store.agents import AgentDefinition

SessionFactory = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class RegisteredAgent:
    """An agent with the code that its runs take along.

    `code` has the fields of run configurations that calls gave, for the runs that name them; `run_config` is for all.
    `likenesses` are those of the code of both, as it was when it was registered.
    """

    agent: Agent[Any]
    definition: AgentDefinition
    run_config: RunConfig | None = None
    code: Mapping[str, Any] = field(default_factory=dict[str, Any])
    likenesses: Mapping[str, Likeness] = field(default_factory=dict[str, Likeness])
    hooks: RunHooks[Any] | None = None
    context_type: type | None = None
    session_factory: SessionFactory | None = None
    error_handlers: RunErrorHandlers[Any] | None = None


_lock = threading.Lock()
_registered: dict[str, RegisteredAgent] = {}


def register_agents(
    *agents: Agent[Any],
    run_config: RunConfig | None = None,
    hooks: RunHooks[Any] | None = None,
    context_type: type | None = None,
    session_factory: SessionFactory | None = None,
    error_handlers: RunErrorHandlers[Any] | None = None,
    replace: bool = False,
) -> None:
    """Make agents known by name, so that this process can execute their runs.

    May be called before or after DBOS is launched, and again: an equal definition replaces the object.

    Args:
        run_config: What the runs take along that is code: model provider, filters, guardrails.
        hooks: Run hooks; they fire again when a run is recovered.
        context_type: Class of the run context, a dataclass or pydantic model; without it the context is plain JSON.
        session_factory: Makes the SDK session for a session id, instead of Timestep's own `Session`.
        error_handlers: What the SDK asks for an output when a run would fail: at its last turn, at a refusal of the
            model, at an output that does not fit. They may be asked again when a run is recovered.
        replace: Take the place of an agent of that name with another definition, or with other code in `run_config`.

    Raises:
        AgentAlreadyRegisteredError: another definition is registered under the name, or other code in a field of
            `run_config`; the message names the field.
        NotDurableError: values of the context type, or results of a tool by its annotation, would not come back.
        UnsupportedError: it is a sandbox agent.
    """
    if context_type is not None:
        check_context_type(context_type)
    for agent in agents:
        if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(
                f"register_agents takes agents, not {type(agent).__name__}: {agent!r}.",
                hint="Pass `agents.Agent` objects, each with a name of its own.",
            )
        if any(kind.__name__ == "SandboxAgent" for kind in type(agent).__mro__):
            raise UnsupportedError(
                f"The agent {agent.name!r} is a sandbox agent; its sandbox is not journalled.",
                hint="Run it with `run_agent`, or give a plain agent the tools that it needs.",
            )
        check_results(agent)
        entry = RegisteredAgent(
            agent=agent,
            definition=define_agent(agent),
            run_config=run_config,
            hooks=hooks,
            context_type=context_type,
            session_factory=session_factory,
            likenesses={name: Likeness.of(value) for name, value in code_of(run_config).items()},
            error_handlers=error_handlers,
        )
        with _lock:
            known = _registered.get(agent.name)
            if known is not None and not replace:
                entry = _beside(known, entry)
            _registered[agent.name] = entry


def register_on_the_way(agent: Agent[Any]) -> RegisteredAgent:
    """Return the registration of an agent that a caller passed in, registering it if its name is free.

    Raises:
        AgentAlreadyRegisteredError: another definition is registered under the name.
    """
    with _lock:
        known = _registered.get(agent.name)
    if known is not None and known.agent is agent:
        return known
    if known is None:
        register_agents(agent)
    else:
        register_agents(
            agent,
            run_config=known.run_config,
            hooks=known.hooks,
            context_type=known.context_type,
            session_factory=known.session_factory,
            error_handlers=known.error_handlers,
        )
    return _registered[agent.name]


def register_code(name: str, code: Mapping[str, Any]) -> None:
    """Keep fields of a run configuration that are code, for the runs of a registered agent that name them.

    What is alike takes the place of what is there: the newest provider is the one whose clients are open.

    Raises:
        AgentAlreadyRegisteredError: the agent has other code in a field; the message names it.
    """
    given = {field: Likeness.of(value) for field, value in code.items()}
    with _lock:
        known = _registered[name]
        _check_alike(known, given)
        _registered[name] = dataclasses.replace(
            known, code={**known.code, **code}, likenesses={**known.likenesses, **given}
        )


def get_agent(name: str) -> RegisteredAgent:
    """Return a registered agent.

    Raises:
        AgentNotRegisteredError: there is none of that name; the message names those that are there.
    """
    entry = _registered.get(name)
    if entry is None:
        known = ", ".join(repr(each) for each in sorted(_registered)) or "none"
        raise AgentNotRegisteredError(f"No agent {name!r} is registered here; registered: {known}.")
    return entry


def find_agent(name: str) -> RegisteredAgent | None:
    """Return a registered agent, or None."""
    return _registered.get(name)


def registered_names() -> list[str]:
    """Return the names of the registered agents."""
    return sorted(_registered)


def forget_agents() -> None:
    """Forget every registered agent."""
    with _lock:
        _registered.clear()


def _beside(known: RegisteredAgent, entry: RegisteredAgent) -> RegisteredAgent:
    """Return the registration that takes the place of an equal one, with the code that calls have given."""
    if known.definition.hash != entry.definition.hash:
        raise AgentAlreadyRegisteredError(
            f"Another agent is registered as {entry.agent.name!r} (definition {known.definition.hash[:12]}, "
            f"this one is {entry.definition.hash[:12]})."
        )
    _check_alike(known, entry.likenesses)
    of_calls = {name: known.likenesses[name] for name in known.code}
    return dataclasses.replace(entry, code=known.code, likenesses={**of_calls, **entry.likenesses})


def _check_alike(known: RegisteredAgent, given: Mapping[str, Likeness]) -> None:
    for name, likeness in given.items():
        there = known.likenesses.get(name)
        if there is not None and not there.is_like(likeness):
            raise AgentAlreadyRegisteredError(
                f"The agent {known.agent.name!r} is registered with another run_config.{name}, which is code: "
                f"{_shown(there.value)} there, {_shown(likeness.value)} here.",
                hint="A restarted process finds one of each name: use the same everywhere, give the agents different "
                "names, or pass what differs from run to run in `context`.",
            )


def _shown(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__name__))
