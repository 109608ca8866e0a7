"""What the providers open belongs to the event loop that asks: it is kept there, and closed with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from agents import Model, ModelSettings, ModelTracing
from keep_alive_server import KeepAliveServer

from timestep import MultiModelProvider, OllamaModelProvider, OpenAICompatibleProvider

Find = Callable[[str], Model]


@pytest.fixture
def kept() -> Iterator[KeepAliveServer]:
    server = KeepAliveServer()
    yield server
    server.close()


def of_openai(url: str) -> Model:
    return MultiModelProvider(openai_api_key="none", openai_base_url=f"{url}/v1").get_model("gpt-4.1")


def of_a_compatible_server(url: str) -> Model:
    return OpenAICompatibleProvider(f"{url}/v1").get_model("m")


def of_ollama(url: str) -> Model:
    return OllamaModelProvider(base_url=url).get_model("m")


async def ask(model: Model) -> None:
    """Ask a model once."""
    absent = dict.fromkeys(
        ("system_instructions", "output_schema", "previous_response_id", "conversation_id", "prompt")
    )
    given = {"input": "Hello", "model_settings": ModelSettings(), "tools": [], "handoffs": []}
    response = await model.get_response(**absent, **given, tracing=ModelTracing.DISABLED)  # type: ignore[arg-type]
    assert response.output


async def three_times(find: Find, url: str) -> None:
    for _ in range(3):
        await ask(find(url))


every = pytest.mark.parametrize("find", [of_openai, of_a_compatible_server, of_ollama])


@every
def test_a_loop_keeps_its_connection_and_closes_it(find: Find, kept: KeepAliveServer) -> None:
    for loops in (1, 2):
        asyncio.run(three_times(find, kept.url))
        assert kept.connections == loops
    while kept.open:  # the server hears of it
        threading.Event().wait(0.01)


@every
def test_one_model_serves_loops_side_by_side(find: Find, kept: KeepAliveServer) -> None:
    model = find(kept.url)
    both = threading.Barrier(2, timeout=30)
    failures: list[BaseException] = []

    async def main() -> None:
        await ask(model)
        await asyncio.to_thread(both.wait)
        await asyncio.gather(ask(model), ask(model))

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
