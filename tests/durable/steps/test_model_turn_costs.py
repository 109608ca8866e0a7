"""The cost of a model call: computed inside its step, recorded with the day of the prices, the same in a replay."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, function_tool
from agents.testing import function_call
from ollama import AsyncClient
from openai import AsyncOpenAI
from turns import Turns

from timestep import RunLimits, list_approvals, raise_limits, run_agent_workflow, wait_run
from timestep.durable.steps import model_attempts
from timestep.models.clients import base_url_of

CALL = 2 + 8
"""Millionths of a dollar for one input and one output token of `gpt-4.1`."""


class Priced(Turns):
    """Turns of a model whose name has a price, or that is called at a URL."""

    def __init__(self, *turns: Any, model: str = "gpt-4.1", base_url: str | None = None) -> None:
        super().__init__(*turns)
        self.model, self.base_url = model, base_url


def working(done: list[int], *, turns: int, **named: Any) -> Agent[Any]:
    @function_tool
    async def work(number: int) -> str:
        done.append(number)
        return f"did {number}"

    calls = [function_call("work", {"number": number}, call_id=f"c{number}") for number in range(1, turns + 1)]
    return Agent(name="worker", model=Priced(*calls, "done", **named), tools=[work])


async def test_at_a_cost_the_run_waits_and_goes_on_when_it_is_raised(engine: Any, new_id: str) -> None:
    done: list[int] = []
    agent = working(done, turns=3)
    await run_agent_workflow(agent, "Go", workflow_id=new_id, limits=RunLimits(max_cost_micro_usd=2 * CALL))
    [asked] = await list_approvals(new_id)
    assert (asked.kind, asked.details["limit"], asked.details["used"]) == ("limit", "max_cost_micro_usd", 2 * CALL)
    assert (engine.status(new_id), done) == ("interrupted", [1, 2])

    await raise_limits(new_id, RunLimits(max_cost_micro_usd=100 * CALL), by="alice")
    assert (await wait_run(new_id)).output == "done"
    assert engine.value("select sum(cost_micro_usd)::int from timestep.usage where run_id = %s", new_id) == 4 * CALL


async def test_a_replay_has_the_recorded_cost_and_asks_for_no_price(
    engine: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_agent_workflow(working([], turns=1), "Go", workflow_id=new_id)
    recorded = engine.output(new_id, "model_turn:1:worker")
    assert (recorded["cost_micro_usd"], recorded["price_source"].split()[0]) == (CALL, "genai-prices")
    assert recorded["priced_at"].startswith("202")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a replay asked for a price")

    monkeypatch.setattr(model_attempts, "price_of", refuse)
    copy, result = await engine.replay(new_id)
    assert result.output == "done"
    rows = engine.query(
        "select cost_micro_usd, price_source, priced_at::text from timestep.usage where run_id = %s", copy
    )
    same = {name: recorded[name] for name in ("cost_micro_usd", "price_source", "priced_at")}
    assert rows == [same, same]


async def test_a_model_on_this_machine_costs_nothing_and_keeps_any_limit(engine: Any, new_id: str) -> None:
    agent = working([], turns=2, model="smollm2", base_url="http://127.0.0.1:8080/v1")
    result = await run_agent_workflow(agent, "Go", workflow_id=new_id, limits=RunLimits(max_cost_micro_usd=1))
    assert result.output == "done"
    assert engine.output(new_id, "model_turn:1:worker")["price_source"] == "local"
    assert engine.value("select sum(cost_micro_usd)::int from timestep.usage where run_id = %s", new_id) == 0


async def test_an_unknown_price_is_null_in_the_row(engine: Any, new_id: str) -> None:
    await run_agent_workflow(working([], turns=1, model="no-such-model"), "Go", workflow_id=new_id)
    assert "cost_micro_usd" not in engine.output(new_id, "model_turn:1:worker")
    assert engine.value("select count(*) from timestep.usage where cost_micro_usd is null and run_id = %s", new_id) == 2


@pytest.mark.parametrize("kind", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
def test_the_models_of_the_sdk_tell_the_url_of_their_client(kind: Any) -> None:
    client = AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
    assert base_url_of(kind(model="gpt-4.1", openai_client=client)) == "http://127.0.0.1:9/v1/"


def test_a_model_of_ollama_tells_the_url_of_its_client_too() -> None:
    model = Turns("done")
    model._client = AsyncClient(host="http://127.0.0.1:11434")  # type: ignore[attr-defined] - as a model of Ollama keeps it
    assert base_url_of(model) == "http://127.0.0.1:11434"
    assert base_url_of(Turns("done")) is None
