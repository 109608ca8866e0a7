"""Plain, streamed and structured runs of a real small model by its prefix.

Answers vary: the tests look at shapes, never at words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, ModelSettings, Runner
from pydantic import BaseModel

from timestep import MultiModelProvider, run_agent, set_default_model_provider
from timestep.settings import reset_settings

pytestmark = pytest.mark.long

SHORT = ModelSettings(max_tokens=200, temperature=0)


class Boat(BaseModel):
    name: str
    masts: int


@pytest.fixture(autouse=True)
def _configured(model_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    servers = {
        "local": {"base_url": f"{model_url}/v1"},
        "responses": {"base_url": f"{model_url}/v1", "use_responses": 1},
        "down": {"base_url": "http://127.0.0.1:9/v1"},
    }
    monkeypatch.setenv("TIMESTEP_MODEL_PROVIDERS", json.dumps(servers))
    monkeypatch.setenv("TIMESTEP_PROBE_LOCAL", "0")
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    reset_settings()
    set_default_model_provider(None)
    yield
    reset_settings()


@pytest.mark.parametrize("name", ["local/smollm2", "responses/smollm2"])
async def test_a_plain_run_has_text_and_tokens(name: str) -> None:
    result = await run_agent(Agent(name="a", model=name, model_settings=SHORT), "Say hello.")
    assert result.output.strip()
    assert result.context_wrapper.usage.output_tokens > 0


@pytest.mark.parametrize("name", ["local/smollm2", "responses/smollm2"])
async def test_a_streamed_run_has_its_text_in_pieces_and_its_tokens(name: str) -> None:
    agent = Agent(name="a", model=MultiModelProvider().get_model(name), model_settings=SHORT)
    result = Runner.run_streamed(agent, "Count to five.")
    pieces: list[str] = []
    async for event in result.stream_events():
        data: Any = getattr(event, "data", None)
        if data is not None and data.type == "response.output_text.delta":
            pieces.append(data.delta)
    assert len(pieces) > 1
    assert "".join(pieces) == result.final_output
    assert result.context_wrapper.usage.output_tokens > 0


async def test_a_structured_run_has_its_output() -> None:
    agent = Agent(name="a", model="local/smollm2", model_settings=SHORT, output_type=Boat)
    assert isinstance((await run_agent(agent, "Name a boat with two masts.")).output, Boat)


async def test_a_fallback_ends_at_the_real_model() -> None:
    agent = Agent(name="a", model="down/m|local/smollm2", model_settings=SHORT)
    assert (await run_agent(agent, "Say hello.")).output.strip()
