"""Models in durable runs: retries and fallback inside one step, who answered, the default, a killed process."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelBehaviorError,
    ModelProvider,
    ModelRetryBackoffSettings,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
    function_tool,
)
from ollama_server import (
    Held,
    Lines,
    OllamaServer,
    Refusal,
    Reply,
    Reset,
    Silence,
    Through,
    answer,
    call,
    chunks,
)

from timestep import (
    FallbackModel,
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModelProvider,
    RunLimits,
    register_agents,
    run_agent_workflow,
    set_default_model_provider,
    stream_run,
)
from timestep.durable.process.engine import engine
from timestep.errors import ModelProviderError
from timestep.store.usage import list_usage

pytestmark = pytest.mark.usefixtures("launched")

Json = dict[str, Any]
Steps = Callable[[str], list[Json]]

SETTINGS = ModelSettings(
    retry=ModelRetrySettings(max_retries=1, backoff=ModelRetryBackoffSettings(initial_delay=0.01, max_delay=0.01))
)


@function_tool
def go() -> str:
    """Go on."""
    return "gone"


@pytest.fixture
def default(server: OllamaServer) -> MultiModelProvider:
    """The default provider of these tests: two prefixes at one server."""
    found = MultiModelProviderMap()
    for prefix in ("first", "second"):
        found.add_provider(prefix, OllamaModelProvider(base_url=server.url))
    provider = MultiModelProvider(found)
    set_default_model_provider(provider)
    return provider


def assistant(model: Any, **given: Any) -> Agent[Any]:
    return Agent(name="assistant", model=model, model_settings=SETTINGS, **given)


async def events_of(run_id: str) -> list[Json]:
    return [event async for event in stream_run(run_id)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_run_with_tools_and_a_passing_fault(
    default: MultiModelProvider, server: OllamaServer, steps: Steps, new_id: str, stream: bool
) -> None:
    server.script(Refusal(status=429), answer("", tool_calls=[call("go"), call("go")]), answer("Done"))
    result = await run_agent_workflow(assistant("first/m", tools=[go]), "Go", stream=stream, workflow_id=new_id)
    assert result.output == "Done"
    assert [step["name"] for step in steps(new_id)] == ["model_turn:1:assistant", "model_turn:2:assistant"]
    assert [(step["model"], step["provider"]) for step in steps(new_id)] == [("first/m", "OllamaModel")] * 2
    told = server.bodies[-1]["messages"][1:]
    calls = [each["id"] for each in told[0]["tool_calls"]]
    assert [each["tool_call_id"] for each in told[1:]] == calls
    assert len(set(calls)) == 2


ONE_TWO = chunks(answer("One two"))[:1]
WHOLE_FAULTS = {
    "429": Refusal(status=429, headers={"retry-after": "0"}),
    "500": Refusal(status=500),
    "a page": Refusal(status=502, error=b"<html>"),
    "reset": Reset(),
    "silence": Silence(),
    "malformed": Lines(lines=['{"message": {"cont']),
    "disconnects": Lines(lines=['{"message": {"cont'], end="disconnects"),
    "another server": Lines(lines=['{"status": "ok"}']),
}
STREAM_FAULTS = WHOLE_FAULTS | {
    "malformed": Lines(lines=[*ONE_TWO, '{"message": {"cont']),
    "disconnects": Lines(lines=ONE_TWO, end="disconnects"),
    "ends early": Lines(lines=ONE_TWO),
    "stalls": Lines(lines=ONE_TWO, end="stalls"),
    "an error in mid-stream": Lines(lines=[*ONE_TWO, {"error": "the runner crashed"}]),
}


@pytest.mark.parametrize(
    ("fault", "stream"),
    [*((name, False) for name in WHOLE_FAULTS), *((name, True) for name in STREAM_FAULTS)],
)
async def test_a_passing_fault_is_tried_again_inside_the_step(
    default: MultiModelProvider, server: OllamaServer, steps: Steps, new_id: str, fault: str, stream: bool
) -> None:
    """With a time limit of an attempt that only silence reaches; a slow machine may reach it too, and asks again."""
    server.script((STREAM_FAULTS if stream else WHOLE_FAULTS)[fault], *[answer("Three four")] * 3)
    is_silent = fault in ("silence", "stalls")
    retry = dataclasses.replace(SETTINGS.retry, max_retries=3)
    settings = ModelSettings(retry=retry, timeout=1.5 if is_silent else None)
    agent = Agent(name="assistant", model="first/m", model_settings=settings)
    result = await run_agent_workflow(agent, "Count", stream=stream, workflow_id=new_id)
    assert result.output == "Three four"
    [step] = steps(new_id)
    assert step["ok"]["output"][0]["content"][0]["text"] == "Three four"
    assert len(server.requests) == result.usage.requests
    assert len(server.requests) == 2 or is_silent


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "fault", [[Refusal(status=500)] * 2, [Lines(lines=chunks(answer("One two"))[:1])] * 2], ids=["500", "cut"]
)
async def test_after_its_retries_the_next_model_answers_in_the_same_step(
    default: MultiModelProvider, server: OllamaServer, steps: Steps, new_id: str, stream: bool, fault: list[Reply]
) -> None:
    server.script(*fault, answer("Second"))
    result = await run_agent_workflow(assistant("first/a|second/b"), "Hi", stream=stream, workflow_id=new_id)
    assert result.output == "Second"
    assert [body["model"] for body in server.bodies] == ["a", "a", "b"]
    [step] = steps(new_id)
    assert (step["model"], step["provider"]) == ("second/b", "OllamaModel")
    [used] = engine().database.run_sync(list_usage, new_id)
    assert (used.model, used.provider, used.requests) == ("second/b", "OllamaModel", 3)
    if stream:
        events = await events_of(new_id)
        assert [event["model"] for event in events if event["type"] == "turn_finished"] == ["second/b"]
        last = [event["attempt"] for event in events if event["type"] == "text_delta"][-1]
        text = [event["text"] for event in events if event["type"] == "text_delta" and event["attempt"] == last]
        assert "".join(text) == "Second"


async def test_a_replay_says_the_same_and_asks_nobody(
    default: MultiModelProvider, server: OllamaServer, new_id: str
) -> None:
    server.script(Refusal(status=400), answer("Second"))
    model = FallbackModel("first/a", "second/b", on=(ModelProviderError,))
    first = await run_agent_workflow(assistant(model), "Hi", workflow_id=new_id)
    again = await run_agent_workflow(assistant(model), "Hi", workflow_id=new_id)
    assert (first.output, again.output) == ("Second", "Second")
    assert len(server.requests) == 2


async def test_misbehaviour_is_fallen_back_on_without_a_retry(
    default: MultiModelProvider, server: OllamaServer, steps: Steps, new_id: str
) -> None:
    server.script(answer("", tool_calls=[call("fly")]), answer("Second"))
    result = await run_agent_workflow(assistant("first/a|second/b", tools=[go]), "Hi", workflow_id=new_id)
    assert (result.output, len(server.requests)) == ("Second", 2)
    [step] = steps(new_id)
    assert (step["model"], [each["model"] for each in step["refused"]]) == ("second/b", ["first/a"])


async def test_an_answer_that_was_not_taken_is_in_the_usage_and_counts_for_the_limits(
    default: MultiModelProvider, server: OllamaServer, new_id: str
) -> None:
    first = answer("", tool_calls=[call("fly")]) | {"prompt_eval_count": 30, "eval_count": 7}
    taken = answer("", tool_calls=[call("go")]) | {"prompt_eval_count": 5, "eval_count": 2}
    server.script(first, taken, answer("Second"))
    result = await run_agent_workflow(
        assistant("first/a|second/b", tools=[go]), "Hi", workflow_id=new_id, limits=RunLimits(max_tokens=44)
    )
    assert result.status == "interrupted"
    rows = {each.step: each for each in engine().database.run_sync(list_usage, new_id)}
    refused = rows["model_turn:1:assistant:refused:1"]
    assert (refused.model, refused.requests, refused.input_tokens, refused.output_tokens) == ("first/a", 1, 30, 7)
    assert (rows["model_turn:1:assistant"].model, rows["model_turn:1:assistant"].requests) == ("second/b", 1)
    assert len(rows) == 2


async def test_when_none_answers_the_last_one_s_error_is_the_run_s(
    default: MultiModelProvider, server: OllamaServer, new_id: str
) -> None:
    server.script(*[Refusal(status=500)] * 2, Refusal(status=401))
    with pytest.raises(ModelProviderError) as caught:
        await run_agent_workflow(assistant("first/a|second/b"), "Hi", workflow_id=new_id)
    assert caught.value.status_code == 401


async def test_the_pattern_of_the_docs_works_with_a_fallback_agent(
    default: MultiModelProvider, server: OllamaServer, new_id: str
) -> None:
    server.script(answer("", tool_calls=[call("fly")]), answer("Second"))
    try:
        result = await run_agent_workflow(assistant("first/a"), "Hi", workflow_id=new_id)
    except ModelBehaviorError:
        other = Agent(name="other", model="second/b")
        result = await run_agent_workflow(other, "Hi", workflow_id=f"{new_id}-other")
    assert result.output == "Second"
    with pytest.raises(ModelBehaviorError):  # as the recorded run tells it
        await run_agent_workflow(assistant("first/a"), "Hi", workflow_id=new_id)


async def test_the_model_of_one_run(
    default: MultiModelProvider, server: OllamaServer, steps: Steps, new_id: str
) -> None:
    server.script(answer("Hi"))
    await run_agent_workflow(assistant("first/a"), "Hi", workflow_id=new_id, model="second/b")
    assert [step["model"] for step in steps(new_id)] == ["second/b"]


async def test_a_registered_provider_comes_before_the_default(
    default: MultiModelProvider, server: OllamaServer, new_id: str
) -> None:
    class Own(ModelProvider):
        def get_model(self, model_name: str | None) -> Model:
            return default.get_model(f"first/own-{model_name}")

    agent = assistant("a")
    register_agents(agent, run_config=RunConfig(model_provider=Own()))
    server.script(answer("Hi"))
    await run_agent_workflow(agent, "Hi", workflow_id=new_id)
    assert server.bodies[0]["model"] == "own-a"


async def test_a_run_config_with_the_default_provider_can_be_stored(
    default: MultiModelProvider, server: OllamaServer, new_id: str
) -> None:
    server.script(answer("Hi"))
    await run_agent_workflow(
        assistant("first/a"), "Hi", workflow_id=new_id, run_config=RunConfig(model_provider=default)
    )


PROGRAM = """
import asyncio, pathlib, sys, time
from agents import Agent, function_tool
import timestep

here = pathlib.Path.cwd()

@function_tool
def weather(city: str) -> str:
    with open(here / "calls", "a") as calls:
        calls.write(city + chr(10))
    while city == "Rome" and (here / "hold").exists():
        time.sleep(0.05)
    return f"weather in {city}"

async def main():
    agent = Agent(name="assistant", model="near/m", tools=[weather])
    given = "weather in two cities"
    result = await timestep.run_agent_workflow(agent, given, stream=True, workflow_id=sys.argv[1])
    print(result.output)

asyncio.run(main())
timestep.cleanup_dbos()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop", ["tool", *(pytest.param(turn, marks=pytest.mark.long) for turn in ("turn 1", "turn 2"))]
)
async def test_a_killed_process_asks_no_finished_turn_again(
    server: OllamaServer, aimock: str, tmp_path: Path, stop: str
) -> None:
    """Streamed, and killed while a turn is answered or a tool runs; the environment alone names the server."""
    name = f"killed-{stop.replace(' ', '-')}"
    variables = os.environ | {
        "TIMESTEP_APP_NAME": name,
        "TIMESTEP_MODEL_PROVIDERS": json.dumps({"near": {"base_url": server.url, "kind": "ollama"}}),
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "program.py", name]
    through, held = Through(url=aimock), Held(reply=Through(url=aimock))
    server.script(*{"turn 1": [held], "tool": [], "turn 2": [through, held]}[stop], *[through] * 3)
    if stop == "tool":
        (tmp_path / "hold").touch()

    first = subprocess.Popen(words, cwd=tmp_path, env=variables)
    is_there = (lambda: "Rome" in calls_in(tmp_path)) if stop == "tool" else server.held.is_set
    await asyncio.to_thread(wait_until, is_there)
    first.send_signal(signal.SIGKILL)
    first.wait()
    server.released.set()
    (tmp_path / "hold").unlink(missing_ok=True)
    second = await asyncio.to_thread(
        subprocess.run, words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=120
    )

    assert second.stdout == "Cold in Oslo, warm in Rome.\n", second.stderr
    asked = [sum(message["role"] == "tool" for message in body["messages"]) for body in server.bodies]
    assert asked == {"turn 1": [0, 0, 2], "tool": [0, 2], "turn 2": [0, 2, 2]}[stop]
    assert len({json.dumps(body) for body in server.bodies}) == 2
    assert set(calls_in(tmp_path)) == {"Oslo", "Rome"}


def calls_in(folder: Path) -> list[str]:
    """Return the calls of the tool."""
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def wait_until(claim: Callable[[], bool]) -> None:
    """Wait for a state; the limit only ends a test that hangs."""
    limit = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < limit
        time.sleep(0.02)
