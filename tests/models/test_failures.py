"""Durable runs against servers that nobody here wrote and that fail: the step tries again, and is recorded once."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from agents import Agent, ModelProvider, ModelRetryBackoffSettings, ModelRetrySettings, ModelSettings, function_tool
from aimock_server import journal_of, serve_aimock
from llmock_server import Llmock, serve_llmock

from timestep import (
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModelProvider,
    OpenAICompatibleProvider,
    run_agent_workflow,
    set_default_model_provider,
)
from timestep.durable.process.engine import engine

pytestmark = pytest.mark.usefixtures("launched")

Json = dict[str, Any]

BACKOFF = ModelRetryBackoffSettings(initial_delay=0.1, multiplier=2, max_delay=1, jitter=False)
RETRY = ModelRetrySettings(max_retries=3, backoff=BACKOFF)
STALL_TIMEOUT_SECONDS = 2.0
"""A time limit of an attempt that only a stall reaches."""

STEPS = ["model_turn:1:assistant", "tool_call:1:go:", "model_turn:2:assistant"]

FAILS: dict[str, list[Json]] = {
    "429": [{"type": "fail", "status": 429, "retry_after": 0.1}],
    "429 without a time": [{"type": "fail", "status": 429}],
    "500 twice": [{"type": "fail", "status": 500, "times": 2}],
    "503": [{"type": "fail", "status": 503}],
}
BROKEN: Json = {"type": "reply", "text": "One two three four five six"}
STREAM_FAULTS: dict[str, list[Json]] = {
    kind: [{"type": "stream_fault", "kind": kind, "after_chunks": 2}, BROKEN]
    for kind in ("truncate", "disconnect", "malformed", "stall")
}
SMOKE = (("429", False), ("disconnect", True))
"""What is tried of Responses in `make test`; all faults are tried with Chat Completions there."""
OLLAMA_SMOKE = (("too many", 0), ("disconnected", 1))
"""What is tried of Ollama's protocol in `make test`; test_durable_models.py tries all faults of it."""
ANSWERS: list[Json] = [
    {"type": "reply", "tool_calls": [{"name": "go", "arguments": {}}]},
    {"type": "reply", "text": "Done"},
]


@function_tool
def go() -> str:
    """Go on."""
    return "gone"


@pytest.fixture(scope="module")
def llmock() -> Iterator[Llmock]:
    with serve_llmock() as server:
        yield server


@pytest.fixture(scope="module")
def failing_aimock() -> Iterator[str]:
    with serve_aimock("aimock_faults.json") as url:
        yield url


def use(prefix: str, provider: ModelProvider) -> None:
    found = MultiModelProviderMap()
    found.add_provider(prefix, provider)
    set_default_model_provider(MultiModelProvider(found))


def steps_of(run_id: str) -> list[str]:
    """Return the recorded steps of a run, without the ids of calls, which the server makes."""
    names = [step["function_name"] for step in engine().client.list_workflow_steps(run_id)]
    turns = [name for name in names if not name.startswith("DBOS.")]
    return [name.rpartition(":")[0] + ":" if name.startswith("tool_call") else name for name in turns]


@pytest.mark.parametrize(
    ("fault", "stream", "use_responses"),
    [
        pytest.param(*fault, use_responses, marks=pytest.mark.long if use_responses and fault not in SMOKE else ())
        for use_responses in (False, True)
        for fault in (*itertools.product(FAILS, (False, True)), *itertools.product(STREAM_FAULTS, (True,)))
    ],
)
async def test_a_fault_of_a_server_of_openai_s_protocols_passes(
    llmock: Llmock, new_id: str, fault: str, stream: bool, use_responses: bool
) -> None:
    use("local", OpenAICompatibleProvider(f"{llmock.url}/v1", use_responses=use_responses))
    broken = (FAILS | STREAM_FAULTS)[fault]
    llmock.script(*broken, *ANSWERS)
    settings = ModelSettings(retry=RETRY, timeout=STALL_TIMEOUT_SECONDS if fault == "stall" else None)
    agent = Agent(name="assistant", model="local/gpt-4o", tools=[go], model_settings=settings)

    result = await run_agent_workflow(agent, "Go", stream=stream, workflow_id=new_id)

    assert result.output == "Done"
    assert steps_of(new_id) == STEPS
    failed = broken[0].get("times", 1)
    assert len(llmock.statuses) == failed + 2
    # The server does not see that its reader stopped at the malformed chunk of a short answer; the requests say it.
    assert set(llmock.findings) <= ({"malformed_chunk_ignored"} if fault == "malformed" else set())


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        pytest.param(fault, stream, marks=() if (fault, stream) in OLLAMA_SMOKE else pytest.mark.long)
        for fault, stream in (
            *itertools.product(("too many", "down", "malformed", "dropped", "disconnected"), (0, 1)),
            ("broken off", 1),
        )
    ],
)
async def test_a_fault_of_a_server_of_ollama_s_protocol_passes(
    failing_aimock: str, new_id: str, fault: str, stream: int
) -> None:
    client = ollama.AsyncClient(host=failing_aimock, headers={"X-Test-Id": uuid.uuid4().hex})
    use("local", OllamaModelProvider(ollama_client=client))
    agent = Agent(name="assistant", model="local/m", tools=[go], model_settings=ModelSettings(retry=RETRY))
    before = len(journal_of(failing_aimock))

    async with client:
        result = await run_agent_workflow(agent, fault, stream=bool(stream), workflow_id=new_id)

    assert result.output == "Done"
    assert steps_of(new_id) == STEPS
    assert len(journal_of(failing_aimock)) == before + 3
