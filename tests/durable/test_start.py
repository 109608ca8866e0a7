"""`run_agent_workflow`: call forms, the result, the recorded result, refusals at the door."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from agents import Agent, AgentOutputSchema, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

from timestep import DurableRunResult, RunStateStore, Session, register_agents, run_agent_workflow
from timestep.errors import RunInputMismatchError

pytestmark = pytest.mark.usefixtures("engine")


class Order(BaseModel):
    number: int
    goods: list[str]


@dataclasses.dataclass
class Parcel:
    number: int
    weight_grams: int


def says(*texts: str, name: str = "assistant", **options: Any) -> Agent[Any]:
    """An agent that answers with these texts, one a run."""
    return Agent(name=name, model=ScriptedModel([[assistant_message(text)] for text in texts]), **options)


async def test_takes_an_agent_object(new_id: str) -> None:
    result = await run_agent_workflow(agent=says("Hello"), input_items="Hi", session=None, workflow_id=new_id)

    assert result.output == "Hello"


async def test_takes_the_name_of_a_registered_agent(new_id: str) -> None:
    register_agents(says("Hello"))

    result = await run_agent_workflow(agent="assistant", input_items="Hi", workflow_id=new_id)

    assert result.output == "Hello"


async def test_takes_the_older_keyword_for_the_name() -> None:
    register_agents(says("Hello"))

    assert (await run_agent_workflow(agent_id="assistant", input_items="Hi")).output == "Hello"


async def test_takes_the_older_positional_order(new_id: str) -> None:
    register_agents(says("Hello"))

    result = await run_agent_workflow("assistant", [{"role": "user", "content": "Hi"}], "order-7", False, new_id, 60)

    assert result.run_id == new_id
    assert await Session("order-7").get_items() == [
        {"role": "user", "content": "Hi"},
        result.to_input_list()[0],
    ]


async def test_takes_the_documented_positional_order(new_id: str) -> None:
    agent, seen = says("Hello"), []

    async def look(result: Any) -> None:
        seen.append(result.output)

    result = await run_agent_workflow(agent, "Hi", Session("table-1"), False, look, None, None, new_id, 60)

    assert (result.run_id, seen) == (new_id, ["Hello"])


async def test_a_session_and_its_id_are_the_same_conversation() -> None:
    agent = says("Hello Alice", "Alice")

    await run_agent_workflow(agent, "I am Alice", Session("alice"))
    await run_agent_workflow(agent, "Who am I?", "alice")

    assert [item["role"] for item in agent.model.last_call.input] == ["user", "assistant", "user"]
    assert len(await Session("alice").get_items()) == 4


async def test_takes_the_session_of_the_state_store() -> None:
    agent = says("Hello")
    store = RunStateStore(agent, session_id="kept")

    await run_agent_workflow(agent, "Hi", state_store=store)

    assert len(await Session("kept").get_items()) == 2


async def test_without_an_id_each_run_has_a_new_one() -> None:
    agent = says("one", "two")

    first, second = await run_agent_workflow(agent, "Hi"), await run_agent_workflow(agent, "Hi")

    assert first.run_id != second.run_id
    assert (first.output, second.output) == ("one", "two")


async def test_the_result_has_its_documented_fields(new_id: str) -> None:
    agent = says("Hello")

    result = await run_agent_workflow(agent, "Hi", workflow_id=new_id)

    assert isinstance(result, DurableRunResult)
    assert result.output == result.final_output == result["output"] == result["final_output"] == "Hello"
    assert "output" in result
    assert "nothing" not in result
    with pytest.raises(KeyError):
        result["nothing"]
    assert (result.run_id, result.status, result.interruptions) == (new_id, "succeeded", [])
    assert [item.type for item in result.new_items] == ["message_output_item"]
    assert result.usage.requests == 1
    assert result.last_agent is agent
    assert result.to_state().to_json()["original_input"] == "Hi"


async def test_the_same_id_returns_the_recorded_result_without_a_model_call(new_id: str) -> None:
    calls = []

    @function_tool
    def look_up(number: int) -> str:
        calls.append(number)
        return f"order {number}: shipped"

    agent = Agent(
        name="assistant",
        tools=[look_up],
        model=ScriptedModel(
            [[function_call("look_up", {"number": 7}, call_id="c1")], [assistant_message("It is shipped.")]]
        ),
    )

    live = await run_agent_workflow(agent, "Where is order 7?", workflow_id=new_id)
    recorded = await run_agent_workflow(agent, "Where is order 7?", workflow_id=new_id)

    assert calls == [7]
    assert len(agent.model.calls) == 2
    assert recorded.output == live.output
    assert recorded.status == live.status
    assert recorded.to_input_list() == live.to_input_list()
    assert recorded.usage.requests == live.usage.requests == 2
    assert recorded.last_agent is live.last_agent
    assert recorded.to_state().to_json()["original_input"] == live.to_state().to_json()["original_input"]


@pytest.mark.parametrize(
    ("output_type", "text", "value"),
    [
        (Order, '{"number": 7, "goods": ["pen"]}', Order(number=7, goods=["pen"])),
        (Parcel, '{"response": {"number": 7, "weight_grams": 200}}', Parcel(number=7, weight_grams=200)),
        (list[Order], '{"response": [{"number": 7, "goods": []}]}', [Order(number=7, goods=[])]),
        (int, '{"response": 3}', 3),
        (AgentOutputSchema(dict[str, int], strict_json_schema=False), '{"pens": 3}', {"pens": 3}),
        (AgentOutputSchema(Order, strict_json_schema=False), '{"number": 7, "goods": []}', Order(number=7, goods=[])),
    ],
    ids=["pydantic", "dataclass", "list", "int", "schema-of-dict", "schema-of-model"],
)  # fmt: skip
async def test_a_typed_output_is_the_same_live_and_recorded(
    output_type: Any, text: str, value: Any, new_id: str
) -> None:
    agent = says(text, output_type=output_type)

    live = await run_agent_workflow(agent, "Order a pen", workflow_id=new_id)
    recorded = await run_agent_workflow(agent, "Order a pen", workflow_id=new_id)

    assert live.output == recorded.output == value
    assert type(recorded.output) is type(value)


@pytest.mark.parametrize(
    "other",
    [
        {"input_items": "Something else"},
        {"session": "another"},
        {"context": {"user": "bob"}},
    ],
    ids=["input", "session", "context"],
)
async def test_the_same_id_with_other_work_is_refused(other: dict[str, Any], new_id: str) -> None:
    agent = says("Hello")
    await run_agent_workflow(agent=agent, input_items="Hi", workflow_id=new_id)

    with pytest.raises(RunInputMismatchError, match=f"'{new_id}' is known with another") as found:
        await run_agent_workflow(**{"agent": agent, "input_items": "Hi", "workflow_id": new_id} | other)

    assert "Use a new id" in found.value.hint


async def test_the_same_id_with_another_agent_is_refused(new_id: str) -> None:
    await run_agent_workflow(says("Hello"), "Hi", workflow_id=new_id)

    with pytest.raises(RunInputMismatchError):
        await run_agent_workflow(says("Hello", name="other"), "Hi", workflow_id=new_id)


async def test_input_that_differs_in_key_order_alone_is_the_same_input(new_id: str) -> None:
    agent = says("Hello")
    await run_agent_workflow(agent, [{"role": "user", "content": "Hi"}], workflow_id=new_id)

    assert (await run_agent_workflow(agent, [{"content": "Hi", "role": "user"}], workflow_id=new_id)).output == "Hello"


async def test_two_callers_of_one_id_at_once_get_one_run(new_id: str) -> None:
    import asyncio

    agent = says("Hello")

    first, second = await asyncio.gather(
        run_agent_workflow(agent, "Hi", workflow_id=new_id), run_agent_workflow(agent, "Hi", workflow_id=new_id)
    )

    assert first.output == second.output == "Hello"
    assert len(agent.model.calls) == 1


async def test_a_result_processor_is_called_with_the_result_in_the_caller(new_id: str) -> None:
    agent, seen = says("Hello"), []

    async def look(result: Any) -> None:
        seen.append(result.output)

    async def shout(result: Any) -> str:
        return result.output.upper()

    assert (await run_agent_workflow(agent, "Hi", workflow_id=new_id, result_processor=look)).output == "Hello"
    assert await run_agent_workflow(agent, "Hi", workflow_id=new_id, result_processor=shout) == "HELLO"
    assert seen == ["Hello"]


async def test_a_result_processor_is_not_called_when_the_run_is_replayed(engine: Any, new_id: str) -> None:
    seen = []

    async def look(result: Any) -> None:
        seen.append(result.output)

    await run_agent_workflow(says("Hello"), "Hi", workflow_id=new_id, result_processor=look)
    _, replayed = await engine.replay(new_id)

    assert replayed.output == "Hello"
    assert seen == ["Hello"]


async def test_a_run_state_is_an_input(new_id: str) -> None:
    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        return f"paid {amount}"

    agent = Agent(
        name="assistant",
        tools=[pay],
        model=ScriptedModel([[function_call("pay", {"amount": 3}, call_id="c1")], [assistant_message("Paid.")]]),
    )
    store = RunStateStore(agent)
    waiting = await run_agent_workflow(agent, "Pay 3", state_store=store)
    assert waiting.status == "interrupted"
    assert [item.name for item in waiting.interruptions] == ["pay"]

    state = await store.load()
    for interruption in state.get_interruptions():
        state.approve(interruption)
    result = await run_agent_workflow(agent, state, workflow_id=new_id, branch=True)

    assert result.output == "Paid."
    assert (await run_agent_workflow(agent, state, workflow_id=new_id, branch=True)).output == "Paid."


async def test_an_interrupted_run_is_read_again_with_its_interruptions(new_id: str) -> None:
    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        return f"paid {amount}"

    agent = Agent(
        name="assistant", tools=[pay], model=ScriptedModel([[function_call("pay", {"amount": 3}, call_id="c1")]])
    )

    await run_agent_workflow(agent, "Pay 3", workflow_id=new_id)
    recorded = await run_agent_workflow(agent, "Pay 3", workflow_id=new_id)

    assert recorded.status == "interrupted"
    assert [(item.name, item.arguments) for item in recorded.interruptions] == [("pay", '{"amount":3}')]
    assert recorded.output is None
