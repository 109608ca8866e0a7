"""Servers of models: one that fails as it is told, one that nobody here wrote; and the engine in this process."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from agents import Model
from aimock_server import serve_aimock
from hypothesis import settings
from model_calls import ask, stream
from ollama_server import OllamaServer

import timestep
from timestep.durable.process.engine import engine
from timestep.durable.process.registered_agents import forget_agents
from timestep.models import ollama_model
from timestep.models.ollama_model import OllamaModel
from timestep.models.ollama_provider import OllamaModelProvider
from timestep.settings import reset_settings

HERE = Path(__file__).parent

Json = dict[str, Any]

_OURS = ("PG_CONNECTION_URI", "TIMESTEP_DB_URL", "DBOS_SYSTEM_DATABASE_URL", "TIMESTEP_MODEL_PROVIDERS",
         "OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_API_KEY", "OLLAMA_HOST")  # fmt: skip

settings.register_profile("timestep", database=None, deadline=None)  # the checkout may belong to another user
settings.load_profile("timestep")


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
    forget_agents()
    yield
    timestep.set_default_model_provider(None)
    forget_agents()
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
    with serve_aimock(HERE / "aimock.json") as url:
        yield url


@pytest.fixture(scope="module")
def launched() -> Iterator[None]:
    """The launched engine of this module."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and shutil.disk_usage(memory).free > 1_000_000_000 else Path("/tmp").resolve()
    folder = Path(tempfile.mkdtemp(prefix="timestep-models-", dir=place))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name in _OURS:
            patch.delenv(name, raising=False)
        patch.setenv("TIMESTEP_DATA_DIR", str(folder))
        patch.setenv("TIMESTEP_PROBE_LOCAL", "0")
        patch.setenv("TIMESTEP_APP_NAME", "models")
        patch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
        timestep.cleanup_dbos()
        timestep.configure_dbos()
        timestep.ensure_dbos_launched()
        yield
        timestep.cleanup_dbos()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_id() -> str:
    """A run id of the test's own."""
    return f"run-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def steps() -> Callable[[str], list[Json]]:
    """Return the recorded model turns of a run: name and envelope."""

    def read(run_id: str) -> list[Json]:
        found = engine().client.list_workflow_steps(run_id)
        return [{"name": step["function_name"], **step["output"]} for step in found
                if step["function_name"].startswith("model_turn")]  # fmt: skip

    return read
