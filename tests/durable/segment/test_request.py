"""What is refused at the door: a clear error with a hint, and nothing stored."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from agents import Agent, RunConfig, SQLiteSession
from agents.testing import ScriptedModel, assistant_message
from pydantic import BaseModel

from timestep import Session, queue_agent_workflow, register_agents, run_agent, run_agent_workflow
from timestep.errors import (
    AgentAlreadyRegisteredError,
    AgentNotRegisteredError,
    InvalidInputError,
    InvalidRunIdError,
    NotDurableError,
    UnsupportedError,
)


@pytest.fixture
def agent() -> Agent[Any]:
    return Agent(name="assistant", model=ScriptedModel([[assistant_message("Hello")]] * 3))


@pytest.fixture(autouse=True)
def nothing_is_stored(engine: Any, request: pytest.FixtureRequest) -> Any:
    count = "select (select count(*) from timestep.runs) + (select count(*) from dbos.workflow_status)"
    before = engine.value(count)
    yield
    if "is_fine" not in request.node.name and "works" not in request.node.name:
        assert engine.value(count) == before


async def test_an_unknown_name_lists_the_names_that_are_known(agent: Agent[Any]) -> None:
    register_agents(agent, Agent(name="clerk"))

    with pytest.raises(AgentNotRegisteredError, match=r"No agent 'nobody' .* 'assistant', 'clerk'") as found:
        await run_agent_workflow("nobody", "Hi")

    assert "register_agents" in found.value.hint


async def test_a_sandbox_agent_is_refused_by_name() -> None:
    from agents.sandbox import SandboxAgent

    with pytest.raises(UnsupportedError, match="'box' is a sandbox agent"):
        register_agents(SandboxAgent(name="box"))


async def test_two_different_agents_of_one_name_are_refused(agent: Agent[Any]) -> None:
    register_agents(agent)
    other = Agent(name="assistant", instructions="Be short.")

    with pytest.raises(AgentAlreadyRegisteredError, match="'assistant'") as found:
        register_agents(other)
    with pytest.raises(AgentAlreadyRegisteredError):
        await run_agent_workflow(other, "Hi")

    assert "replace=True" in found.value.hint


async def test_an_equal_agent_replaces_the_object_and_replace_takes_another_works(agent: Agent[Any]) -> None:
    register_agents(Agent(name="assistant", model=ScriptedModel([])))
    register_agents(agent)
    assert (await run_agent_workflow("assistant", "Hi")).output == "Hello"

    register_agents(
        Agent(name="assistant", instructions="Be short.", model=ScriptedModel([[assistant_message("Yo")]])),
        replace=True,
    )
    assert (await run_agent_workflow("assistant", "Hi")).output == "Yo"


@pytest.mark.parametrize("value", [None, 7, "assistant-class"], ids=repr)
async def test_what_is_no_agent_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        await run_agent_workflow(agent=value, input_items="Hi")


async def test_register_agents_takes_agents_alone() -> None:
    with pytest.raises(InvalidInputError, match="takes agents, not str"):
        register_agents("assistant")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "  \n"], ids=repr)
async def test_empty_text_is_refused(agent: Agent[Any], text: str) -> None:
    for start in (run_agent_workflow, run_agent):
        with pytest.raises(InvalidInputError, match="The input is empty"):
            await start(agent, text)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (None, "No input was given"),
        ([], "The input is an empty list"),
        (7, "text, a list of items or a RunState, not int"),
        ({"role": "user", "content": "Hi"}, "not dict"),
        (["Hi"], "Item 0 of the input is str"),
        (
            [{"role": "user", "content": "Hi"}, {"role": "boss", "content": "Hi"}],
            "Item 1 of the input has the role 'boss'",
        ),
        ([{"role": "user"}], "Item 0 of the input has the content None"),
        ([{"role": "user", "content": 7}], "Item 0 of the input has the content 7"),
        ([{"content": "Hi"}], "Item 0 of the input has the role None"),
        ([{"type": 7}], "Item 0 of the input has the type 7"),
        ([{"role": "user", "content": "Hi", "when": object()}], "The input is not JSON-able"),
        ([{"role": "user", "content": [float("nan")]}], "The input is not JSON-able"),
    ],
)
async def test_malformed_input_says_which_item(agent: Agent[Any], items: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        await run_agent_workflow(agent, items)
    with pytest.raises(InvalidInputError, match=message):
        queue_agent_workflow(agent, items)


@pytest.mark.parametrize(
    ("run_id", "message"),
    [
        ("", "is empty"),
        ("order~2", "contains '~'"),
        ("order\n7", "cannot be printed"),
        ("order\x00", "cannot be printed"),
        ("\ud800", "cannot be printed"),
        (" order", "begins or ends with a space"),
        ("x" * 10_000, "has 10000 characters, more than 200"),
        (7, "A run id is text, not int"),
    ],
    ids=["empty", "segment mark", "line end", "nul", "surrogate", "space", "long", "number"],
)
async def test_an_unusable_run_id_is_refused(agent: Agent[Any], run_id: Any, message: str) -> None:
    with pytest.raises(InvalidRunIdError, match=message) as found:
        await run_agent_workflow(agent, "Hi", workflow_id=run_id)

    assert len(str(found.value)) < 300


@pytest.mark.parametrize("run_id", ["Bestellung-Ä7", "注文-7", "a b", "x" * 200, "a/b:c#d%e'\"", "😀"])
async def test_an_unusual_run_id_is_fine(engine: Any, agent: Agent[Any], run_id: str) -> None:
    first = await run_agent_workflow(agent, "Hi", workflow_id=run_id, session=run_id)
    again = await run_agent_workflow(agent, "Hi", workflow_id=run_id, session=run_id)

    assert first.run_id == again.run_id == run_id
    assert engine.status(run_id) == "succeeded"
    assert len(await Session(run_id).get_items()) == 2


@pytest.mark.parametrize("session", ["", "x" * 201, "a\nb"], ids=["empty", "long", "line end"])
async def test_an_unusable_session_id_is_refused(agent: Agent[Any], session: str) -> None:
    with pytest.raises(InvalidInputError, match="The session id"):
        await run_agent_workflow(agent, "Hi", session)
    with pytest.raises(InvalidInputError, match="The session id"):
        await run_agent_workflow(agent, "Hi", session_id=session)


async def test_a_session_id_that_is_no_text_is_refused(agent: Agent[Any]) -> None:
    with pytest.raises(InvalidInputError, match="The session is a int"):
        await run_agent_workflow(agent, "Hi", session_id=7)  # type: ignore[arg-type]


@dataclasses.dataclass
class Basket:
    goods: list[str]


class Customer(BaseModel):
    name: str


class Bare:
    pass


@pytest.mark.parametrize("context", [{"when": object()}, Bare()], ids=["object", "class"])
async def test_a_context_that_would_not_come_back_is_refused(agent: Agent[Any], context: Any) -> None:
    with pytest.raises(NotDurableError, match="cannot be stored") as found:
        await run_agent_workflow(agent, "Hi", context=context)

    assert "context_type" in found.value.hint


@pytest.mark.parametrize("context", [Basket(goods=[]), Customer(name="Ann")], ids=["dataclass", "pydantic"])
async def test_a_typed_context_without_its_class_registered_is_refused(agent: Agent[Any], context: Any) -> None:
    name = type(context).__name__
    with pytest.raises(NotDurableError, match=f"The context is a {name}") as found:
        await run_agent_workflow(agent, "Hi", context=context)

    assert f"register_agents(agent, context_type={name})" in found.value.hint


async def test_a_context_of_another_class_than_the_registered_one_is_refused(agent: Agent[Any]) -> None:
    register_agents(agent, context_type=Basket)

    with pytest.raises(InvalidInputError, match="registered with context_type=Basket"):
        await run_agent_workflow(agent, "Hi", context={"goods": []})


async def test_an_unknown_field_of_the_run_config_is_refused(agent: Agent[Any]) -> None:
    with pytest.raises(InvalidInputError, match="run_config has no field 'colour'"):
        await run_agent_workflow(agent, "Hi", run_config={"colour": "red"})


async def test_the_registered_run_config_given_again_is_fine(engine: Any, agent: Agent[Any]) -> None:
    config = RunConfig(handoff_input_filter=lambda data: data, workflow_name="Shop")
    register_agents(agent, run_config=config)

    assert (await run_agent_workflow(agent, "Hi", run_config=config)).output == "Hello"


async def test_a_session_of_another_kind_is_refused_with_the_way_to_use_it(agent: Agent[Any]) -> None:
    session = SQLiteSession("s")

    with pytest.raises(NotDurableError, match="The session is a SQLiteSession") as found:
        await run_agent_workflow(agent, "Hi", session)

    assert "session_factory" in found.value.hint
    session.close()


async def test_a_session_factory_works(engine: Any, agent: Agent[Any], new_id: str) -> None:
    kept: dict[str, SQLiteSession] = {}
    register_agents(agent, session_factory=lambda session_id: kept.setdefault(session_id, SQLiteSession(session_id)))

    await run_agent_workflow("assistant", "Hi", f"one-{new_id}", workflow_id=new_id)
    await run_agent_workflow("assistant", "And?", f"one-{new_id}")
    await run_agent_workflow("assistant", "Hi", f"one-{new_id}", workflow_id=new_id)

    assert [item["role"] for item in agent.model.last_call.input] == ["user", "assistant", "user"]
    assert len(await kept[f"one-{new_id}"].get_items()) == 4
    assert await Session(f"one-{new_id}").get_items() == []
    for session in kept.values():
        session.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds is a number of seconds above 0"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"timeout_seconds": "soon"}, "timeout_seconds"),
        ({"max_turns": 0}, "max_turns is a number of turns from 1 on"),
        ({"max_turns": -3}, "max_turns"),
        ({"max_turns": 1.5}, "max_turns"),
        ({"max_turns": "many"}, "max_turns"),
    ],
    ids=repr,
)
async def test_nonsense_limits_are_refused(agent: Agent[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        await run_agent_workflow(agent, "Hi", **options)


async def test_a_queued_run_takes_no_result_processor(agent: Agent[Any]) -> None:
    async def look(result: Any) -> Any:
        return result

    with pytest.raises(InvalidInputError, match="calls no result_processor"):
        queue_agent_workflow(agent, "Hi", result_processor=look)  # type: ignore[arg-type]
