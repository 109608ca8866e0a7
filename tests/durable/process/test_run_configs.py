"""Run configurations with code: what is registered, which runs it is for, and what becomes of a run without it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    Model,
    ModelProvider,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
    SessionSettings,
    ToolExecutionConfig,
    function_tool,
    input_guardrail,
    output_guardrail,
    retry_policies,
)
from agents.testing import function_call
from turns import Turns

from timestep import (
    approve,
    create_scheduled_agent_workflow,
    queue_agent_workflow,
    queue_many,
    register_agents,
    run_agent_workflow,
    set_default_model_provider,
    wait_run,
)
from timestep.client.executors import list_stranded_runs
from timestep.client.schedules import delete_schedule, trigger_schedule
from timestep.durable.process.engine import engine as launched_engine
from timestep.durable.process.registered_agents import find_agent, forget_agents
from timestep.durable.process.run_configs import code_of, data_of, with_data
from timestep.errors import AgentAlreadyRegisteredError, ModelNotConfiguredError, NotDurableError


class Provider(ModelProvider):
    """Has one model, by any name that begins like this."""

    def __init__(self, text: str = "Hello", prefix: str = "house-") -> None:
        self.text, self.prefix = text, prefix
        self.opened: list[str] = []

    def get_model(self, model_name: str | None) -> Model:
        if not (model_name or "").startswith(self.prefix):
            raise ValueError(model_name)
        self.opened.append(model_name or "")
        return Turns(self.text)


def desk(**options: Any) -> Agent[Any]:
    fields: dict[str, Any] = {"name": "desk", "model": "house-1", **options}
    return Agent(**fields)


def config(text: str = "Hello") -> RunConfig:
    return RunConfig(model_provider=Provider(text))


@pytest.fixture(autouse=True)
def no_default_provider() -> Any:
    yield
    set_default_model_provider(None)


@input_guardrail
async def refuses(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


@output_guardrail
async def passes(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)


async def test_a_provider_comes_with_an_agent_that_nobody_registered(engine: Any, new_id: str) -> None:
    result = await run_agent_workflow(desk(), "Hi", workflow_id=new_id, run_config=config())

    assert result.output == "Hello"
    assert engine.run(new_id)["options"]["code"] == ["model_provider"]


async def test_a_model_comes_with_an_agent_that_nobody_registered(engine: Any) -> None:
    assert (await run_agent_workflow(desk(), "Hi", run_config=RunConfig(model=Turns("Own")))).output == "Own"


CODE: dict[str, Callable[[], Any]] = {
    "model": lambda: Turns("Hello"),
    "model_provider": Provider,
    "model_settings": lambda: ModelSettings(
        retry=ModelRetrySettings(max_retries=1, policy=retry_policies.http_status((500,)))
    ),
    "handoff_input_filter": lambda: lambda data: data,
    "handoff_history_mapper": lambda: lambda items: items,
    "input_guardrails": lambda: [refuses],
    "output_guardrails": lambda: [passes],
    "tracing": lambda: {"api_key": "secret"},
    "trace_metadata": lambda: {"made_by": object()},
    "session_input_callback": lambda: lambda history, new: history + new,
    "call_model_input_filter": lambda: lambda data: data.model_data,
    "tool_error_formatter": lambda: lambda arguments: "failed",
    "output_guardrail_blocked_message": lambda: lambda arguments: "blocked",
}
"""Every field that may be code, with a way to make it anew each time."""

DATA: dict[str, Any] = {
    "model": "house-2",
    "model_settings": ModelSettings(temperature=0.5, retry=ModelRetrySettings(max_retries=1)),
    "nest_handoff_history": True,
    "tracing_disabled": True,
    "trace_include_sensitive_data": False,
    "workflow_name": "Shop",
    "trace_id": "trace_1",
    "group_id": "group",
    "trace_metadata": {"a": 1},
    "session_settings": SessionSettings(limit=3),
    "reasoning_item_id_policy": "omit",
    "tool_execution": ToolExecutionConfig(max_function_tool_concurrency=2),
    "tool_not_found_behavior": "return_error_to_model",
    "tool_name_collision_policy": "error",
    "output_guardrail_blocked_message": "blocked",
}


def test_every_field_of_a_run_configuration_is_known_here() -> None:
    names = {field.name for field in dataclasses.fields(RunConfig)}
    assert names == {*CODE, *DATA, "sandbox"}  # a sandbox agent is refused


@pytest.mark.parametrize("field", CODE)
def test_code_is_told_from_data(field: str) -> None:
    given = RunConfig(**{field: CODE[field]()})

    assert list(code_of(given)) == [field]
    assert data_of(given) == {}


@pytest.mark.parametrize("field", DATA)
def test_data_comes_back_as_it_was(field: str) -> None:
    given = RunConfig(**{field: DATA[field]})

    assert code_of(given) == {}
    assert getattr(with_data(RunConfig(), data_of(given)), field) == DATA[field]


@pytest.mark.parametrize("field", CODE)
async def test_an_equal_configuration_may_be_made_for_each_call(engine: Any, field: str) -> None:
    for _ in range(2):
        fields: dict[str, Any] = {"model_provider": Provider(), field: CODE[field]()}
        given = RunConfig(**fields)
        with contextlib.suppress(InputGuardrailTripwireTriggered):
            assert (await run_agent_workflow(desk(), "Hi", run_config=given)).output == "Hello"


async def test_the_guardrail_of_a_call_works(engine: Any) -> None:
    given = RunConfig(model_provider=Provider(), input_guardrails=[refuses])
    with pytest.raises(InputGuardrailTripwireTriggered):
        await run_agent_workflow(desk(), "Hi", run_config=given)


@pytest.mark.parametrize(
    ("field", "one", "two"),
    [
        ("model_provider", Provider("A"), Provider("B")),
        ("model", Turns("A"), Turns("B")),
        ("call_model_input_filter", lambda data: data.model_data, lambda data: None),
        ("input_guardrails", [refuses], [refuses, refuses]),
    ],
)
async def test_another_configuration_of_code_is_refused_with_its_field(
    engine: Any, field: str, one: Any, two: Any
) -> None:
    queue_agent_workflow(desk(), "Hi", run_config=RunConfig(**{field: one}), delay_seconds=1000)
    count = engine.value("select count(*) from timestep.runs")

    with pytest.raises(AgentAlreadyRegisteredError, match=rf"'desk' .* run_config\.{field}") as found:
        await run_agent_workflow(desk(), "Hi", run_config=RunConfig(**{field: two}))
    with pytest.raises(AgentAlreadyRegisteredError, match=rf"run_config\.{field}"):
        queue_agent_workflow("desk", "Hi", run_config={field: two})
    with pytest.raises(AgentAlreadyRegisteredError, match=rf"Run 1 .* run_config\.{field}"):
        queue_many(["Hi"], desk(), run_config=RunConfig(**{field: two}))
    with pytest.raises(AgentAlreadyRegisteredError, match=rf"run_config\.{field}"):
        create_scheduled_agent_workflow("0 0 1 1 *", desk(), "Hi", run_config=RunConfig(**{field: two}))
    with pytest.raises(AgentAlreadyRegisteredError, match=rf"run_config\.{field}"):
        register_agents(desk(), run_config=RunConfig(**{field: two}))

    assert "context" in found.value.hint
    assert engine.value("select count(*) from timestep.runs") == count
    register_agents(desk(), run_config=RunConfig(**{field: two}), replace=True)


async def test_another_registered_configuration_is_refused_unless_it_takes_the_place(engine: Any) -> None:
    register_agents(desk(), run_config=config("A"))
    register_agents(desk(), run_config=config("A"))

    with pytest.raises(AgentAlreadyRegisteredError, match=r"run_config\.model_provider"):
        register_agents(desk(), run_config=config("B"))
    assert (await run_agent_workflow("desk", "Hi")).output == "A"

    register_agents(desk(), run_config=config("B"), replace=True)
    assert (await run_agent_workflow("desk", "Hi")).output == "B"


async def test_the_code_of_a_call_is_for_runs_that_ask_for_it(engine: Any) -> None:
    set_default_model_provider(Provider("Default"))

    assert (await run_agent_workflow(desk(), "Hi", run_config=config("Own"))).output == "Own"
    assert (await run_agent_workflow(desk(), "Hi")).output == "Default"
    register_agents(desk())
    assert (await run_agent_workflow("desk", "Hi", run_config=config("Own"))).output == "Own"


async def test_the_registered_configuration_stays_beside_that_of_a_call(engine: Any) -> None:
    register_agents(desk(), run_config=RunConfig(input_guardrails=[refuses]))

    with pytest.raises(InputGuardrailTripwireTriggered):
        await run_agent_workflow("desk", "Hi", run_config=config())


async def test_a_call_that_is_refused_registers_no_code(engine: Any) -> None:
    register_agents(desk())
    with pytest.raises(NotDurableError):
        await run_agent_workflow(desk(), "Hi", context={"a": object()}, run_config=config("A"))

    assert (await run_agent_workflow(desk(), "Hi", run_config=config("B"))).output == "B"


async def _parked(engine: Any, new_id: str) -> None:
    engine.wait_for_status(new_id, "interrupted")
    assert engine.run(new_id)["reason"] == "configuration_missing"


async def test_a_run_without_its_code_waits_and_goes_on_by_itself_when_it_is_registered(
    engine: Any, new_id: str
) -> None:
    given = RunConfig(model_provider=Provider(), call_model_input_filter=lambda data: data.model_data)
    handle = queue_agent_workflow(desk(), "Hi", workflow_id=new_id, delay_seconds=1, run_config=given)
    forget_agents()
    register_agents(desk(), run_config=config())

    await _parked(engine, new_id)
    error = engine.run(new_id)["error"]
    assert "'desk' without the run_config.call_model_input_filter of this run" in error["message"]
    (stranded,) = [each for each in list_stranded_runs(launched_engine().connector) if each.run_id == new_id]
    assert (stranded.why, stranded.status) == ("configuration", "interrupted")
    assert stranded.detail.endswith(
        "the run_config.call_model_input_filter and run_config.model_provider of the agent 'desk'"
    )
    assert "RunConfig(call_model_input_filter=..., model_provider=...)" in stranded.hint

    register_agents(desk(), run_config=given)
    engine.wait_for_status(new_id, "succeeded")
    assert (await handle.get_result()).output == "Hello"
    assert engine.run(new_id)["error"] is None


async def test_a_run_without_its_code_goes_on_when_a_call_brings_it(engine: Any, new_id: str) -> None:
    queue_agent_workflow(desk(), "Hi", workflow_id=new_id, delay_seconds=1, run_config=config())
    forget_agents()
    register_agents(desk())
    await _parked(engine, new_id)

    assert (await run_agent_workflow(desk(), "Other", run_config=config())).output == "Hello"
    assert (await wait_run(new_id)).output == "Hello"


@pytest.mark.parametrize(
    "option",
    [{}, {"model": "house-2"}, {"run_config": RunConfig(model="house-2")}],
    ids=["nothing", "model", "run_config"],
)
async def test_a_default_provider_that_has_the_model_by_name_does_not_wait(
    engine: Any, new_id: str, option: dict[str, Any]
) -> None:
    given = dataclasses.replace(option.pop("run_config", RunConfig()), model_provider=Provider("Own"))
    agent = desk(model="house-1" if not option and given.model is None else "elsewhere")
    handle = queue_agent_workflow(agent, "Hi", workflow_id=new_id, delay_seconds=1, run_config=given, **option)
    forget_agents()
    set_default_model_provider(Provider("Default"))
    register_agents(agent)

    engine.wait_for_status(new_id, "succeeded")
    assert (await handle.get_result()).output == "Default"


@pytest.mark.parametrize("model", ["elsewhere", None, "handoff"])
async def test_a_default_provider_without_the_model_waits_until_it_has_it(
    engine: Any, new_id: str, model: str | None
) -> None:
    agent = desk(model="house-1", handoffs=[Agent(name="other", model="elsewhere")])
    agent = agent if model == "handoff" else desk(model=model)
    queue_agent_workflow(
        agent, "Hi", workflow_id=new_id, delay_seconds=1, run_config=RunConfig(model_provider=Provider("Own", ""))
    )
    forget_agents()
    set_default_model_provider(Provider("Default"))
    register_agents(agent)
    await _parked(engine, new_id)

    if model is None:  # another provider would take another model for its own
        register_agents(agent, run_config=RunConfig(model_provider=Provider("Own", "")))
    else:
        set_default_model_provider(Provider("Default", ""))
    engine.wait_for_status(new_id, "succeeded")


async def test_the_provider_of_timestep_has_no_model_without_a_key(engine: Any, new_id: str) -> None:
    agent = desk(model="gpt-house | house/one")
    with pytest.raises(ModelNotConfiguredError):
        await run_agent_workflow(agent, "Hi")
    forget_agents()
    given = RunConfig(model_provider=Provider("Own", ""))
    queue_agent_workflow(agent, "Hi", workflow_id=new_id, delay_seconds=1, run_config=given)
    forget_agents()
    register_agents(agent)
    await _parked(engine, new_id)


async def test_queue_many_takes_code_along(engine: Any) -> None:
    handles = queue_many(["a", "b"], desk(), run_config=config())

    assert [(await handle.get_result()).output for handle in handles] == ["Hello", "Hello"]
    assert engine.run(handles[1].run_id)["options"]["code"] == ["model_provider"]


async def test_a_schedule_takes_code_along(engine: Any) -> None:
    connector = launched_engine().connector
    made = create_scheduled_agent_workflow("0 0 1 1 *", desk(), "Hi", name="yearly", run_config=config())
    run_id = trigger_schedule(connector, made.name)
    engine.wait_for_status(run_id, "succeeded")
    forget_agents()
    register_agents(desk())

    run_id = trigger_schedule(connector, made.name)
    await _parked(engine, run_id)
    delete_schedule(connector, made.name)


@function_tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


class Payer(Provider):
    """Asks for a payment, then says that it is done."""

    def get_model(self, model_name: str | None) -> Model:
        del model_name
        return _Payer()


class _Payer(Turns):
    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        is_done = any(isinstance(item, dict) and item.get("type") == "function_call_output" for item in input)
        self.turns = ("Paid.",) if is_done else ([function_call("pay", {"amount": 3}, call_id="c1")],)
        return await super().get_response(system_instructions, input, *args, **kwargs)


async def test_a_segment_after_an_approval_needs_the_code_too(engine: Any, new_id: str) -> None:
    given = RunConfig(model_provider=Payer())
    agent = desk(tools=[pay])
    result = await run_agent_workflow(agent, "Pay", workflow_id=new_id, run_config=given)
    forget_agents()
    register_agents(agent)
    assert result.status == "interrupted"
    await approve(new_id, by="alice")
    await _parked(engine, new_id)

    register_agents(agent, run_config=given)
    assert (await wait_run(new_id)).output == "Paid."


async def test_a_state_brings_the_code_of_its_run_along(engine: Any, new_id: str) -> None:
    agent = desk(tools=[pay])
    state = (
        await run_agent_workflow(agent, "Pay", workflow_id=new_id, run_config=RunConfig(model_provider=Payer()))
    ).to_state()
    state.approve(state.get_interruptions()[0])
    forget_agents()

    result = await run_agent_workflow(agent, state, run_config=RunConfig(model_provider=Payer()))
    assert (result.run_id, result.output) == (new_id, "Paid.")


async def test_a_run_that_no_executor_has_the_code_for_is_told_to_its_caller(engine: Any, new_id: str) -> None:
    queue_agent_workflow(desk(), "Hi", workflow_id=new_id, delay_seconds=1, run_config=config())
    forget_agents()
    register_agents(desk())
    await _parked(engine, new_id)

    result = await run_agent_workflow("desk", "Hi", workflow_id=new_id)
    assert (result.status, result.interruptions) == ("interrupted", [])
    entry = find_agent("desk")
    assert entry is not None
    assert entry.code == {}
