"""The same agents through Ollama, Chat Completions and Responses, against a server that nobody here wrote."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from agents import Agent, MessageOutputItem, ModelProvider, RunConfig, Runner, function_tool
from pydantic import BaseModel

from timestep import (
    FallbackModel,
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModelProvider,
    OpenAICompatibleProvider,
)
from timestep.errors import IncompleteModelResponseError, ModelProviderError

PICTURE = "data:image/png;base64," + base64.b64encode(b"\x89PNG a boat").decode()

Run = Callable[..., Any]


class City(BaseModel):
    name: str
    degrees: int


@function_tool
def weather(city: str, unit: str | None = None) -> str:
    """Return the weather of a city."""
    return f"weather in {city}"


@pytest.fixture
def provider(aimock: str) -> ModelProvider:
    found = MultiModelProviderMap()
    found.add_provider("ollama", OllamaModelProvider(base_url=aimock))
    found.add_provider("chat", OpenAICompatibleProvider(f"{aimock}/v1"))
    found.add_provider("responses", OpenAICompatibleProvider(f"{aimock}/v1", use_responses=True))
    return MultiModelProvider(found)


@pytest.fixture(params=["ollama/m", "chat/m", "responses/m"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def run(request: pytest.FixtureRequest, provider: ModelProvider) -> Run:
    """Run an agent, streamed or not, and return its result."""

    async def run(agent: Agent[Any], given: Any) -> Any:
        config = RunConfig(model_provider=provider)
        if not request.param:
            return await Runner.run(agent, given, run_config=config)
        result = Runner.run_streamed(agent, given, run_config=config)
        async for _ in result.stream_events():
            pass
        return result

    return run


async def test_plain_text(run: Run, name: str) -> None:
    assert (await run(Agent(name="a", model=name), "hello")).final_output == "Hello to you, my friend."


async def test_two_calls_in_a_turn_and_their_results_in_order(run: Run, name: str) -> None:
    result = await run(Agent(name="a", model=name, tools=[weather]), "weather in two cities")
    assert result.final_output == "Cold in Oslo, warm in Rome."
    kinds = [item.type for item in result.new_items]
    assert kinds == ["tool_call_item"] * 2 + ["tool_call_output_item"] * 2 + ["message_output_item"]
    assert [item.output for item in result.new_items[2:4]] == ["weather in Oslo", "weather in Rome"]
    assert result.context_wrapper.usage.requests == 2


@pytest.mark.parametrize("tools", [[], [weather]], ids=["bare", "beside a tool"])
async def test_structured_output(run: Run, name: str, tools: list[Any]) -> None:
    result = await run(Agent(name="a", model=name, output_type=City, tools=tools), "a city")
    assert result.final_output == City(name="Oslo", degrees=3)


async def test_an_image(run: Run, name: str) -> None:
    content = [
        {"type": "input_text", "text": "what is in the picture"},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
    ]
    assert (await run(Agent(name="a", model=name), [{"role": "user", "content": content}])).final_output == "A boat."


async def test_a_handoff(run: Run, name: str) -> None:
    second = Agent(name="second", model=name)
    result = await run(Agent(name="first", model=name, handoffs=[second]), "hand me over")
    assert (result.last_agent, result.final_output) == (second, "Here I am.")


async def test_a_conversation_goes_on_from_one_provider_to_the_next(provider: ModelProvider) -> None:
    """The history that one has made is taken by the others, calls and results and all."""
    given: list[Any] = []
    for name in ("ollama/m", "chat/m", "responses/m", "ollama/m"):
        given.append({"role": "user", "content": "weather in two cities"})
        agent = Agent(name="a", model=name, tools=[weather])
        result = await Runner.run(agent, given, run_config=RunConfig(model_provider=provider))
        assert isinstance(result.new_items[-1], MessageOutputItem)
        given = result.to_input_list()
        given.append({"role": "user", "content": "hello"})
        given = (await Runner.run(agent, given, run_config=RunConfig(model_provider=provider))).to_input_list()


async def test_an_answer_that_breaks_off_is_none(provider: ModelProvider) -> None:
    result = Runner.run_streamed(
        Agent(name="a", model="ollama/m"), "break off", run_config=RunConfig(model_provider=provider)
    )
    with pytest.raises(IncompleteModelResponseError):
        async for _ in result.stream_events():
            pass


async def test_an_error_says_what_the_server_said(provider: ModelProvider) -> None:
    with pytest.raises(ModelProviderError, match="500: down"):
        await Runner.run(
            Agent(name="a", model="ollama/m"), "always fail", run_config=RunConfig(model_provider=provider)
        )


async def test_the_next_model_answers_when_the_first_is_down(aimock: str, provider: ModelProvider) -> None:
    down = OllamaModelProvider(base_url="http://127.0.0.1:9").get_model("m")
    agent = Agent(name="a", model=FallbackModel(down, "chat/m", provider=provider))
    assert (await Runner.run(agent, "hello")).final_output == "Hello to you, my friend."
