"""What tools return and are given, on its way through the journal and the tables."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from agents import Agent, ToolOutputImage, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import (
    Session,
    register_serializer,
    run_agent_workflow,
)

MEGABYTE = 1_000_000


def asks(tools: list[Any], *turns: list[Any], name: str = "assistant") -> Agent[Any]:
    """An agent whose model asks for these calls, turn by turn, and then answers `done`."""
    return Agent(name=name, tools=tools, model=ScriptedModel([*turns, [assistant_message("done")]]))


def outputs(agent: Agent[Any]) -> list[Any]:
    """What the model was told about its calls at last."""
    items = agent.model.last_call.input
    return [item["output"] for item in items if item.get("type") == "function_call_output"]


async def test_a_result_that_cannot_come_back_is_told_to_the_model_and_the_run_goes_on(
    engine: Any, new_id: str
) -> None:
    @function_tool
    def odd() -> object:
        return {"lock": threading.Lock()}

    agent = asks([odd], [function_call("odd", {}, call_id="c1")])

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "done"
    assert "The result of the tool 'odd' cannot be stored" in outputs(agent)[0]
    assert "cannot be stored" in engine.output(new_id, "tool_call:1:odd:c1")["ok"]


@pytest.mark.parametrize("value", [{1: "one"}, (1, 2), float("nan"), b"bytes", {"a": (1,)}, {1}], ids=repr)
async def test_what_json_would_change_comes_back_as_it_was(engine: Any, value: object, new_id: str) -> None:
    @function_tool
    def odd() -> object:
        return value

    agent = asks([odd], [function_call("odd", {}, call_id="c1")])

    await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert outputs(agent)[0] == str(value)
    assert replayed.to_input_list()[1]["output"] == str(value)


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __str__(self) -> str:
        return f"{self.cents} cents"


async def test_a_registered_serializer_carries_a_type_live_and_recorded(engine: Any, new_id: str) -> None:
    register_serializer(Money, dump=lambda money: money.cents, load=Money, name="shop.Money")

    @function_tool
    def price() -> object:
        return Money(250)

    agent = asks([price], [function_call("price", {}, call_id="c1")])

    await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert outputs(agent) == ["250 cents"]
    assert replayed.to_input_list()[1]["output"] == "250 cents"
    assert engine.output(new_id, "tool_call:1:price:c1")["ok"] == {"$type": "shop.Money", "value": 250}


async def test_an_image_of_a_tool_survives_the_journal(engine: Any, new_id: str) -> None:
    @function_tool
    def draw() -> object:
        return ToolOutputImage(image_url="data:image/png;base64,AAAA")

    agent = asks([draw], [function_call("draw", {}, call_id="c1")])

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.to_input_list() == replayed.to_input_list()
    assert live.to_input_list()[1]["output"][0]["image_url"] == "data:image/png;base64,AAAA"


async def test_a_dict_with_our_own_mark_is_a_plain_dict(engine: Any, new_id: str) -> None:
    @function_tool
    def odd() -> object:
        return {"$type": "shop.Nothing", "value": 1}

    agent = asks([odd], [function_call("odd", {}, call_id="c1")])

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert live.to_input_list() == replayed.to_input_list()
    assert "shop.Nothing" in outputs(agent)[0]


async def test_fifty_megabytes_are_refused_clearly_and_the_run_goes_on(engine: Any, new_id: str) -> None:
    @function_tool
    def large() -> str:
        return "x" * (50 * MEGABYTE)

    agent = asks([large], [function_call("large", {}, call_id="c1")])

    result = await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert result.output == "done"
    assert "50,000,002 bytes, more than the limit of 8" in outputs(agent)[0]
    size = engine.value("select max(length(output)) from dbos.operation_outputs where workflow_uuid = %s", new_id)
    assert size < MEGABYTE


async def test_large_arguments_of_a_call_are_fine_below_the_limit(engine: Any, new_id: str) -> None:
    @function_tool
    def count(text: str) -> int:
        return len(text)

    agent = asks([count], [function_call("count", {"text": "x" * MEGABYTE}, call_id="c1")])

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert outputs(agent) == [str(MEGABYTE)]


@pytest.mark.parametrize("text", ["a\x00b", "lone \ud800 surrogate", "\x00", "é\u2028"], ids=ascii)
async def test_strange_text_survives_in_results_items_and_answers(engine: Any, text: str, new_id: str) -> None:
    @function_tool
    def tell() -> str:
        return text

    agent = Agent(
        name="assistant",
        tools=[tell],
        model=ScriptedModel([[function_call("tell", {}, call_id="c1")], [assistant_message(f"said {text}")]]),
    )
    session = Session(f"strange-{new_id}")

    live = await run_agent_workflow(agent, f"Say {text}", session=session, workflow_id=new_id)
    recorded = await run_agent_workflow(agent, f"Say {text}", session=session, workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    assert outputs(agent) == [text]
    assert live.output == recorded.output == replayed.output == f"said {text}"
    items = (await session.get_items())[:4]
    assert items[0]["content"] == f"Say {text}"
    assert items[2]["output"] == text
    assert items[3]["content"][0]["text"] == f"said {text}"


async def test_nul_in_the_arguments_of_a_call_reaches_the_tool_and_the_tables(engine: Any, new_id: str) -> None:
    heard = []

    @function_tool
    def echo(text: str) -> str:
        heard.append(text)
        return text

    agent = asks([echo], [function_call("echo", json.dumps({"text": "a\x00b"}), call_id="c1")])

    await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert heard == ["a\x00b"]
    [row] = engine.query("select arguments from timestep.tool_calls where run_id = %s", new_id)
    assert json.loads(row["arguments"]) == {"text": "a\x00b"}


async def test_raw_control_characters_in_arguments_survive_the_tables(engine: Any, new_id: str) -> None:
    @function_tool
    def echo(text: str) -> str:
        return text

    agent = asks([echo], [function_call("echo", '{"text": "a\x00b"}', call_id="c1")])

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "done"
    assert engine.value("select arguments from timestep.tool_calls where run_id = %s", new_id)


async def test_a_lone_surrogate_in_arguments_is_the_sdk_s_own_error_live_and_recorded(new_id: str) -> None:
    @function_tool
    def echo(text: str) -> str:
        return text

    agent = asks([echo], [function_call("echo", json.dumps({"text": "\ud800"}), call_id="c1")])

    errors = []
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError) as found:
            await run_agent_workflow(agent, "Go", workflow_id=new_id)
        errors.append(str(found.value))
    assert errors[0] == errors[1]
