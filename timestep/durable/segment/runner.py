"""The SDK's runner inside workflows, and putting the seams in place.

Every Runner.run inside a workflow passes here: the one of a run, those of agents used as tools, and those that a
program calls in a workflow of its own.
"""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

from agents import Agent, InputGuardrail, RunConfig, RunResult, RunResultStreaming, RunState
from agents.run import AgentRunner

from timestep.durable import steps
from timestep.durable.journal.scope import Scope, Segment, active_scope, entered
from timestep.durable.journal.step import StepFailure
from timestep.durable.seams import agents_sdk, dbos_sdk, run_state, tool_outputs
from timestep.durable.seams.release_check import AGENTS_RELEASE
from timestep.durable.states.origin import note_end
from timestep.durable.steps import guardrails, native_tools, tool_result
from timestep.models import http_clients
from timestep.settings import current_settings


class DurableRunner(AgentRunner):
    """Runs agents as the SDK does; inside a workflow every effect is a step."""

    async def run(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> RunResult:
        """Run an agent to its end or its next interruption."""
        scope = await _scope_of_run()
        if scope is None:
            return await super().run(starting_agent, input, **kwargs)
        with entered(scope):
            _prepare(scope, starting_agent, input, kwargs.get("run_config"))
            if not scope.is_foreign:
                return await super().run(starting_agent, input, **kwargs)
            try:
                return await super().run(starting_agent, input, **kwargs)
            except StepFailure as failure:
                raise failure.cause from None

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> RunResultStreaming:
        """Start a streamed run; the SDK's background task inherits the scope."""
        scope = _sub_scope(active_scope()) if active_scope() is not None else _foreign_scope(attempt=1)
        if scope is None:
            return super().run_streamed(starting_agent, input, **kwargs)
        with entered(scope):
            _prepare(scope, starting_agent, input, kwargs.get("run_config"))
            return super().run_streamed(starting_agent, input, **kwargs)


def install() -> None:
    """Put Timestep's functions in the place of the SDK's; may be called again."""
    http_clients.install()
    native_tools.register_result_types()
    agents_sdk.add_output_property()
    agents_sdk.note_ends_on_states(note_end)
    with AGENTS_RELEASE.optional("The Agents SDK's look at its agents and their tools"):
        from timestep.durable.seams import agents_speed  # optional: it may need what this release lacks

        agents_speed.install()
    tool_outputs.install(tool_result.shown_output)
    agents_sdk.install(agents_sdk.Replacements(runner=DurableRunner(), **_replaced()))


def _replaced() -> dict[str, Callable[..., Any]]:
    """Return the functions of durable/steps that replace those of the SDK, by name: the `REPLACES` of each file."""
    modules = [import_module(f"{steps.__name__}.{found.name}") for found in pkgutil.iter_modules(steps.__path__)]
    return {function.__name__: function for module in modules for function in getattr(module, "REPLACES", ())}


async def _scope_of_run() -> Scope | None:
    scope = active_scope()
    if scope is not None:
        return _sub_scope(scope)
    if not dbos_sdk.is_in_workflow():
        return None
    return _foreign_scope(attempt=await asyncio.to_thread(dbos_sdk.attempts_of_workflow))


def _sub_scope(scope: Scope | None) -> Scope:
    """Return the scope of a Runner.run: its own the first time; later ones, from hooks or filters, get one below."""
    assert scope is not None
    scope.runs += 1
    if scope.runs == 1:
        return scope
    return Scope(
        segment=scope.segment,
        path=f"{scope.path}run{scope.runs}/",
        depth=scope.depth,
        runs=1,
        last_step_id=scope.last_step_id,
    )


def _foreign_scope(*, attempt: int) -> Scope | None:
    """Return a scope for a run in a workflow that is not Timestep's own."""
    context = dbos_sdk.current_context()
    if context is None or not context.is_workflow():
        return None
    segment = Segment(
        run_id=context.workflow_id,
        attempt=attempt,
        is_foreign=True,
        max_result_bytes=current_settings().max_result_bytes,
    )
    return Scope(segment=segment, path=f"run{context.function_id}/", runs=1, is_foreign=True)


def _prepare(scope: Scope, agent: Agent[Any], input: Any, run_config: RunConfig | dict[str, Any] | None) -> None:
    """Draw the step ids that must not depend on what runs first: input guardrails, calls of an interrupted turn."""
    if isinstance(input, RunState):
        scope.turn = run_state.turns_of(input)
        calls, tools = run_state.pending_calls(input)
        scope.plan(calls, tools)
        return
    shared: Any = run_config.get("input_guardrails") if isinstance(run_config, dict) else None
    if isinstance(run_config, RunConfig):
        shared = run_config.input_guardrails
    found: list[InputGuardrail[Any]] = [*agent.input_guardrails, *(shared or [])]
    guardrails.reserve_input_guardrails(scope, found)
