"""The demo's agents: a planner with parallel tools and a sub-agent, and a writer to whom it hands over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from agents import Agent, Model, ModelResponse, ModelSettings, function_tool, handoff
from agents.models.multi_provider import MultiProvider
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.usage import Usage
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from timestep.cli.demo.local_model import NAME
from timestep.cli.demo.models import LOCAL, SCRIPTED
from timestep.cli.demo.side_log import SideLog
from timestep.models.ollama_host import local_url
from timestep.words import FUNCTION_CALL, FUNCTION_CALL_OUTPUT

TASK = "Plan one day in Lisbon for me."
MODEL_SECONDS = 0.5
LOCAL_TOKENS = 60

Call = tuple[str, str, dict[str, Any]]
Script = Callable[[set[str]], list[Call] | str]
"""What an agent does, decided from the ids of the calls that have a result: more calls, or its answer."""

Work = Callable[[str, str, float], Awaitable[None]]
"""What the body of a tool does: agent, tool, and for how many seconds."""


def build_planner(log: SideLog, model_name: str) -> Agent[Any]:
    """Return the planner; the bodies of all its steps write to `log`."""

    def model(agent: str, script: Script) -> Model:
        return LoggedModel(_model(model_name, script), agent, log)

    async def work(agent: str, name: str, seconds: float) -> None:
        with log.body("tool", agent, name):
            await asyncio.sleep(seconds)

    @function_tool
    async def weather(city: str) -> str:
        """Return the weather of tomorrow."""
        await work("planner", "weather", 0.4)
        return f"{city}: sun, 21 degrees"

    @function_tool
    async def flights(city: str) -> str:
        """Return a flight for tomorrow."""
        await work("planner", "flights", 0.9)
        return f"TP 531 to {city} at 07:05"

    @function_tool
    async def book_flight(flight: str) -> str:
        """Book a flight."""
        await work("planner", "book_flight", 0.7)
        return f"{flight} is booked"

    @function_tool
    async def book_table(restaurant: str) -> str:
        """Book a table for the evening."""
        await work("planner", "book_table", 0.5)
        return f"a table at {restaurant} is booked"

    async def hand_over(_: Any) -> None:
        with log.body("handoff", "planner", "writer"):
            pass

    guide = _build_guide(work, model("guide", _guide))
    writer = _build_writer(work, model("writer", _writer))
    return Agent[Any](
        name="planner",
        instructions="Plan a day. First ask weather, flights and local_guide at once. Then call book_flight and "
        "book_table at once. Then hand over to the writer.",
        tools=[
            weather,
            flights,
            guide.as_tool("local_guide", "Ask somebody who knows the city."),
            book_flight,
            book_table,
        ],
        handoffs=[handoff(writer, on_handoff=hand_over)],
        model=model("planner", _planner),
    )


def _build_guide(work: Work, model: Model) -> Agent[Any]:
    @function_tool
    async def museums(city: str) -> str:
        """Return a museum."""
        await work("guide", "museums", 0.5)
        return f"{city}: the tile museum"

    @function_tool
    async def restaurants(city: str) -> str:
        """Return a restaurant."""
        await work("guide", "restaurants", 0.7)
        return f"{city}: Cervejaria Ramiro"

    return Agent[Any](
        name="guide", instructions="You know the city. Ask both of your tools at once, then answer in one sentence.",
        tools=[museums, restaurants], model=model,
    )  # fmt: skip


def _build_writer(work: Work, model: Model) -> Agent[Any]:
    @function_tool
    async def save_plan(plan: str) -> str:
        """Save the finished plan."""
        await work("writer", "save_plan", 0.6)
        return "saved"

    return Agent[Any](
        name="writer", instructions="Save the plan with save_plan, then tell it in two sentences.",
        tools=[save_plan], model=model,
    )  # fmt: skip


class LoggedModel(Model):
    """A model whose calls write to the demo's log."""

    def __init__(self, inner: Model, agent: str, log: SideLog) -> None:
        self.inner, self.agent, self.log = inner, agent, log
        self.model = getattr(inner, "model", None)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        with self.log.body("model", self.agent, "model"):
            return await self.inner.get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("The demo does not stream.")


class ScriptedModel(Model):
    """A model that follows a script; it keeps nothing in memory, so it goes on where a killed process stopped."""

    def __init__(self, script: Script) -> None:
        self.script, self.model = script, SCRIPTED

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        await asyncio.sleep(MODEL_SECONDS)
        items: list[Any] = input if isinstance(input, list) else []
        move = self.script(_done(input))
        output: list[Any] = [_message(move)] if isinstance(move, str) else [_call(*call) for call in move]
        usage = Usage(
            requests=1, input_tokens=60 + 40 * len(items), output_tokens=30, total_tokens=90 + 40 * len(items)
        )
        return ModelResponse(output=output, usage=usage, response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("The demo does not stream.")


class LocalModel(Model):
    """A real model that calls no tools: the calls are those of the script, every word is its own."""

    def __init__(self, script: Script, url: str) -> None:
        self.script, self.model = script, NAME
        self.inner = OpenAIChatCompletionsModel(NAME, AsyncOpenAI(base_url=f"{url}/v1", api_key="none"))

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        given = kwargs["input"]
        if not isinstance(self.script(_done(given)), str):
            return await ScriptedModel(self.script).get_response(*args, **kwargs)
        known = ". ".join(str(item["output"]) for item in given if item.get("type") == FUNCTION_CALL_OUTPUT)
        asked = {
            "system_instructions": None,
            "input": f"Tell a traveller in two short sentences: {known}.",
            "model_settings": ModelSettings(max_tokens=LOCAL_TOKENS, temperature=0.2),
            "tools": [],
            "handoffs": [],
        }
        return await self.inner.get_response(*args, **kwargs | asked)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("The demo does not stream.")


def _done(given: Any) -> set[str]:
    """Return the ids of the calls that have a result."""
    items: list[Any] = given if isinstance(given, list) else []
    return {item["call_id"] for item in items if isinstance(item, dict) and item.get("type") == FUNCTION_CALL_OUTPUT}


def _planner(done: set[str]) -> list[Call] | str:
    if "ask_guide" not in done:
        return [
            ("ask_weather", "weather", {"city": "Lisbon"}),
            ("ask_flights", "flights", {"city": "Lisbon"}),
            ("ask_guide", "local_guide", {"input": "What should I see and eat in Lisbon?"}),
        ]
    if "book_flight" not in done:
        return [
            ("book_flight", "book_flight", {"flight": "TP 531"}),
            ("book_table", "book_table", {"restaurant": "Cervejaria Ramiro"}),
        ]
    return [("hand_over", "transfer_to_writer", {})]


def _guide(done: set[str]) -> list[Call] | str:
    if not done:
        return [
            ("find_museums", "museums", {"city": "Lisbon"}),
            ("find_restaurants", "restaurants", {"city": "Lisbon"}),
        ]
    return "See the tile museum, and eat at Cervejaria Ramiro."


def _writer(done: set[str]) -> list[Call] | str:
    if "save_plan" not in done:
        return [("save_plan", "save_plan", {"plan": "Lisbon: TP 531, the tile museum, Cervejaria Ramiro."})]
    return (
        "You fly to sunny Lisbon at 07:05 and see the tile museum. In the evening a table waits at Cervejaria Ramiro."
    )


def _model(name: str, script: Script) -> Model:
    if name == SCRIPTED:
        return ScriptedModel(script)
    if name.startswith(f"{LOCAL}:"):
        return LocalModel(script, name.removeprefix(f"{LOCAL}:"))
    if name.startswith("ollama:"):
        client = AsyncOpenAI(base_url=f"{local_url()[0]}/v1", api_key="ollama")
        return OpenAIChatCompletionsModel(name.removeprefix("ollama:"), client)
    return MultiProvider().get_model(None)


def _call(call_id: str, name: str, arguments: dict[str, Any]) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(type=FUNCTION_CALL, call_id=call_id, name=name, arguments=json.dumps(arguments))


def _message(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="answer", type="message", role="assistant", status="completed", content=[part])
