"""The engine in this process on a server of these tests' own, and a provider that does as it is told."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
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

import timestep
from timestep.durable.process.engine import engine
from timestep.durable.process.registered_agents import forget_agents

MakeAgent = Callable[..., Agent[Any]]

_SETTINGS = ("PG_CONNECTION_URI", "TIMESTEP_DB_URL", "DBOS_SYSTEM_DATABASE_URL", "OPENAI_API_KEY")
_AT_ONCE = ModelRetryBackoffSettings(initial_delay=0.01, max_delay=0.01)


@pytest.fixture(scope="module")
def launched() -> Iterator[None]:
    """The launched engine of this module."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and shutil.disk_usage(memory).free > 1_000_000_000 else Path("/tmp").resolve()
    folder = Path(tempfile.mkdtemp(prefix="timestep-providers-", dir=place))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name in _SETTINGS:
            patch.delenv(name, raising=False)
        patch.setenv("TIMESTEP_DATA_DIR", str(folder))
        patch.setenv("TIMESTEP_PROBE_LOCAL", "0")
        patch.setenv("TIMESTEP_APP_NAME", "providers")
        patch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
        timestep.cleanup_dbos()
        timestep.ensure_dbos_launched()
        yield
        timestep.cleanup_dbos()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_registered() -> Iterator[None]:
    forget_agents()
    yield
    forget_agents()


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
def new_id() -> str:
    """A run id of the test's own."""
    return f"run-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def steps() -> Callable[[str], list[str]]:
    """Return the names of the recorded model turns and tool calls of a run."""

    def read(run_id: str) -> list[str]:
        names = [step["function_name"] for step in engine().client.list_workflow_steps(run_id)]
        return [name for name in names if name.startswith(("model_turn", "tool_call"))]

    return read
