"""The engine in this process on a server of these tests' own, and a provider that does as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelRetryBackoffSettings,
    ModelRetrySettings,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
)
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from provider_server import ProviderServer

from timestep.durable.process.engine import engine

MakeAgent = Callable[..., Agent[Any]]

_AT_ONCE = ModelRetryBackoffSettings(initial_delay=0.01, max_delay=0.01)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `make test` try every fault with Chat Completions, and with Responses those that are marked `smoke`."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if parameters.get("protocol") == "responses" and not item.get_closest_marker("smoke"):
            item.add_marker("long")


@pytest.fixture(scope="module")
def launched(engine: Any) -> None:
    """The launched engine of this module."""


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    """A provider of the test's own."""
    server = ProviderServer()
    yield server
    server.close()


@pytest.fixture(params=["chat", "responses"])
def protocol(request: pytest.FixtureRequest) -> str:
    """The protocol that the agent speaks."""
    return request.param


@pytest.fixture
async def make_agent(provider: ProviderServer, protocol: str) -> AsyncIterator[MakeAgent]:
    """Make an agent on the provider, which waits no longer between attempts than it is told to."""
    http = DefaultAsyncHttpxClient(verify=False)  # there is no TLS, and reading certificates takes a tenth of a second
    client = AsyncOpenAI(base_url=provider.url, api_key="none", http_client=http)
    kind = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[protocol]
    model: Model = kind("scripted", client)

    def make(*, timeout: float | None = None, max_retries: int | None = None, **options: Any) -> Agent[Any]:
        retry = ModelRetrySettings(max_retries=max_retries, backoff=_AT_ONCE)
        options = {"model_settings": ModelSettings(timeout=timeout, retry=retry)} | options
        return Agent(name="assistant", model=model, **options)

    yield make
    await client.close()


@pytest.fixture
def steps() -> Callable[[str], list[str]]:
    """Return the names of the recorded model turns and tool calls of a run."""

    def read(run_id: str) -> list[str]:
        names = [step["function_name"] for step in engine().client.list_workflow_steps(run_id)]
        return [name for name in names if name.startswith(("model_turn", "tool_call"))]

    return read
