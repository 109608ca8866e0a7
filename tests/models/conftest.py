"""Servers of models: one that fails as it is told, one that nobody here wrote; and the engine in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from agents import Model
from aimock_server import serve_aimock
from model_calls import ask, stream
from ollama_server import OllamaServer

import timestep
from timestep.durable.process.engine import engine
from timestep.models import ollama_model
from timestep.models.ollama_model import OllamaModel
from timestep.models.ollama_provider import OllamaModelProvider
from timestep.settings import reset_settings

HERE = Path(__file__).parent

Json = dict[str, Any]

_OURS = ("PG_CONNECTION_URI", "TIMESTEP_DB_URL", "DBOS_SYSTEM_DATABASE_URL", "TIMESTEP_MODEL_PROVIDERS",
         "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_API_KEY", "OLLAMA_HOST")  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """No key, no host, no server and no default of the machine's own, and no agent of another test."""
    for name in _OURS:
        monkeypatch.delenv(name, raising=False)
    if "launched" not in request.fixturenames:
        monkeypatch.setenv("TIMESTEP_PROBE_LOCAL", "0")
        reset_settings()
    timestep.set_default_model_provider(None)
    ollama_model._told.clear()
    yield
    timestep.set_default_model_provider(None)
    if "launched" not in request.fixturenames:
        reset_settings()


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    """A server of the test's own that does as it is told."""
    server = OllamaServer()
    yield server
    server.close()


@pytest.fixture
def model(server: OllamaServer) -> OllamaModel:
    """A model at that server, as the provider makes it."""
    made = OllamaModelProvider(base_url=server.url).get_model("m")
    assert isinstance(made, OllamaModel)
    return made


@pytest.fixture
def client_of() -> Callable[[str], ollama.AsyncClient]:
    """Make a client of the `ollama` package, as a caller would."""
    return lambda url: ollama.AsyncClient(host=url)


@pytest.fixture(params=["whole", "streamed"])
def output(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return the output items of a call, streamed or not."""

    async def whole(model: Model, items: Any = "Hi", **given: Any) -> list[Any]:
        return (await ask(model, items, **given)).output

    async def streamed(model: Model, items: Any = "Hi", **given: Any) -> list[Any]:
        return (await stream(model, items, **given))[-1].response.output

    return whole if request.param == "whole" else streamed


@pytest.fixture(scope="session")
def aimock() -> Iterator[str]:
    """The address of a server of OpenAI's protocols and of Ollama's that nobody here wrote."""
    with serve_aimock("aimock.json") as url:
        yield url


@pytest.fixture(scope="module")
def launched(engine: Any) -> None:
    """The launched engine of this module."""


@pytest.fixture
def steps() -> Callable[[str], list[Json]]:
    """Return the recorded model turns of a run: name and envelope."""

    def read(run_id: str) -> list[Json]:
        found = engine().client.list_workflow_steps(run_id)
        return [{"name": step["function_name"], **step["output"]} for step in found
                if step["function_name"].startswith("model_turn")]  # fmt: skip

    return read
