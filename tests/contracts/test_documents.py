"""The documents' Python examples run, with two edits: `from timestep import Session`, `Agent(name=..., model=...)`.

Where an example speaks of interruptions, its agent also has a tool that needs an approval. The pages print
`await (result)` where the name of `consume_result` was lost.
"""

from __future__ import annotations

import ast
import inspect
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, ModelBehaviorError, UserError, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

import timestep
from timestep import Session
from timestep.durable.process.registered_agents import forget_agents
from timestep.embedded_postgres import EmbeddedPostgres

INPUT = [{"role": "user", "content": "Hello"}]

DURABLE_EXECUTION = """
from timestep import run_agent, RunStateStore, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL, tools=TOOLS)
session = Session()
state_store = RunStateStore(agent=agent, session_id=await session._get_session_id())

result = await run_agent(agent, input_items, session, stream=False)

if result.interruptions:
    state = result.to_state()
    await state_store.save(state)

    loaded_state = await state_store.load()
    for interruption in loaded_state.get_interruptions():
        loaded_state.approve(interruption)

    result = await run_agent(agent, loaded_state, session, stream=False)
"""

SAVE_AT_THE_INTERRUPTION = """
from timestep import run_agent, RunStateStore, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL, tools=TOOLS)
session = Session()
state_store = RunStateStore(agent=agent, session_id=await session._get_session_id())

result = await run_agent(agent, input_items, session, stream=False)

if result.interruptions:
    state = result.to_state()
    await state_store.save(state)
    session_id = await session._get_session_id()
    print(f"State saved. Resume in TypeScript with session_id: {session_id}")
"""

LOAD_AND_RESUME = """
from timestep import run_agent, RunStateStore, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL, tools=TOOLS)
session = Session(session_id)
state_store = RunStateStore(agent=agent, session_id=await session._get_session_id())

saved_state = await state_store.load()

for interruption in saved_state.get_interruptions():
    saved_state.approve(interruption)

result = await run_agent(agent, saved_state, session, False)
"""

RUN_AGENT = """
from timestep import run_agent, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL)
session = Session()

result = await run_agent(
    agent,
    [{"role": "user", "content": "Hello"}],
    session,
    stream=False
)

result = await run_agent(
    agent,
    [{"role": "user", "content": "Hello"}],
    session,
    stream=True
)

print(result.output)
"""

CUSTOM_PROCESSOR = """
from timestep import run_agent, default_result_processor, Session
from agents import Agent

async def custom_processor(result):
    if hasattr(result, 'stream_events'):
        async for event in result.stream_events():
            print(f"Event: {event}")
    return result

agent = Agent(name="assistant", model=MODEL)
session = Session()

result = await run_agent(
    agent,
    [{"role": "user", "content": "Hello"}],
    session,
    stream=True,
    result_processor=custom_processor
)
processed = result

result = await run_agent(
    agent,
    [{"role": "user", "content": "Hello"}],
    session,
    stream=True,
    result_processor=None
)
"""

COMPLETE_EXAMPLE = """
from timestep import run_agent, RunStateStore, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL, tools=TOOLS)
session = Session(SESSION_ID)
state_store = RunStateStore(
    agent=agent,
    session_id=await session._get_session_id()
)

try:
    run_state = await state_store.load()
    print("Resuming conversation")
except FileNotFoundError:
    run_state = [{"role": "user", "content": "Hello"}]
    print("Starting new conversation")

result = await run_agent(agent, run_state, session, stream=False)

if result.interruptions:
    state = result.to_state()
    await state_store.save(state)

    loaded_state = await state_store.load()
    for interruption in loaded_state.get_interruptions():
        loaded_state.approve(interruption)

    result = await run_agent(agent, loaded_state, session, stream=False)

await state_store.save(result.to_state())

await state_store.close()
"""

CLEAR = """
from timestep import RunStateStore, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL)
session = Session(SESSION_ID)
state_store = RunStateStore(
    agent=agent,
    session_id=await session._get_session_id()
)

await state_store.clear()
await state_store.close()
"""

STREAMING = """
from timestep import run_agent, consume_result, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL)
session = Session()

result = await run_agent(agent, input_items, session, stream=True)

async for event in result.stream_events():
    print(event)

result = await consume_result(result)
"""

ERROR_HANDLING = """
from timestep import run_agent, Session
from agents import Agent
from agents.exceptions import AgentsException, ModelBehaviorError

agent = Agent(name="assistant", model=MODEL)
session = Session()

try:
    result = await run_agent(agent, input_items, session, stream=False)
except ModelBehaviorError as e:
    print(f"Model error: {e}")
    fallback_agent = Agent(name="fallback", model=FALLBACK_MODEL)
    result = await run_agent(fallback_agent, input_items, session, stream=False)
except AgentsException as e:
    print(f"Agent error: {e}")
"""

SESSION_MANAGEMENT = """
from timestep import run_agent, consume_result, Session
from agents import Agent

agent = Agent(name="assistant", model=MODEL)

session = Session()

result1 = await run_agent(
    agent,
    [{"role": "user", "content": "Hello, my name is Alice"}],
    session,
    stream=False
)
await consume_result(result1)

result2 = await run_agent(
    agent,
    [{"role": "user", "content": "What's my name?"}],
    session,
    stream=False
)
await consume_result(result2)
"""

DBOS_WORKFLOW = """
from timestep import run_agent_workflow, configure_dbos, ensure_dbos_launched

configure_dbos()
ensure_dbos_launched()

result = await run_agent_workflow(
    agent=agent,
    input_items=input_items,
    session=session,
    workflow_id="unique-id"
)
"""


@pytest.fixture(scope="module", autouse=True)
def nothing_configured() -> Iterator[None]:
    """The first start on a machine: no settings, a data directory that is not there yet."""
    folder = Path(tempfile.mkdtemp(prefix="timestep-documents-", dir="/tmp")).resolve()
    folder.chmod(0o755)
    timestep.cleanup_dbos()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PG_CONNECTION_URI", "TIMESTEP_DB_URL", "DBOS_SYSTEM_DATABASE_URL", "OPENAI_API_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("TIMESTEP_DATA_DIR", str(folder / "data"))
        patch.setenv("TIMESTEP_PROBE_LOCAL", "0")
        patch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
        yield
        timestep.cleanup_dbos()
    server = EmbeddedPostgres(folder / "data" / "postgres" / "18")
    server.release()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_registered() -> Iterator[None]:
    forget_agents()
    yield
    forget_agents()


@pytest.fixture
def paid() -> list[int]:
    return []


@pytest.fixture
def tools(paid: list[int]) -> list[Any]:
    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        paid.append(amount)
        return f"paid {amount}"

    return [pay]


def says(*texts: str) -> ScriptedModel:
    return ScriptedModel([[assistant_message(text)] for text in texts])


def asks_and_says(*texts: str) -> ScriptedModel:
    return ScriptedModel(
        [[function_call("pay", {"amount": 3}, call_id="c1")], *([assistant_message(text)] for text in texts)]
    )


async def run(block: str, **names: Any) -> dict[str, Any]:
    """Run an example and return its names."""
    code = compile(block, "<document>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"input_items": INPUT, "TOOLS": [], **names}
    running = eval(code, names)
    if inspect.isawaitable(running):
        await running
    return names


async def test_durable_execution_with_an_approval(tools: list[Any], paid: list[int]) -> None:
    names = await run(DURABLE_EXECUTION, MODEL=asks_and_says("Paid."), TOOLS=tools)

    assert paid == [3]
    assert names["result"].output == names["result"].final_output == "Paid."
    assert not names["result"].interruptions
    kinds = [item.get("type", item.get("role")) for item in await names["session"].get_items()]
    assert kinds == ["user", "function_call", "function_call_output", "message"]


async def test_without_interruptions_the_same_example_runs_through() -> None:
    assert (await run(DURABLE_EXECUTION, MODEL=says("Hi")))["result"].output == "Hi"


async def test_a_state_saved_in_one_place_is_resumed_in_another(
    tools: list[Any], paid: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = asks_and_says("Paid.")

    saved = await run(SAVE_AT_THE_INTERRUPTION, MODEL=model, TOOLS=tools)
    assert paid == []
    assert saved["session_id"] in capsys.readouterr().out
    resumed = await run(LOAD_AND_RESUME, MODEL=model, TOOLS=tools, session_id=saved["session_id"])

    assert paid == [3]
    assert resumed["result"].output == "Paid."


async def test_run_agent_plain_and_streamed(capsys: pytest.CaptureFixture[str]) -> None:
    names = await run(RUN_AGENT, MODEL=says("Hello!", "Hello again!"))

    assert capsys.readouterr().out == "Hello again!\n"
    assert len(await names["session"].get_items()) == 4


async def test_a_custom_processor_sees_the_events_and_none_skips_them(capsys: pytest.CaptureFixture[str]) -> None:
    names = await run(CUSTOM_PROCESSOR, MODEL=says("Hello!", "Hello again!"))

    assert capsys.readouterr().out.count("Event: ") > 3
    assert names["processed"].output == "Hello!"
    unprocessed = names["result"]
    assert not unprocessed.is_complete
    assert (await names["default_result_processor"](unprocessed)).output == "Hello again!"


async def test_the_complete_example_of_a_state_store(
    tools: list[Any], paid: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = asks_and_says("Paid.", "Anything else?")

    first = await run(COMPLETE_EXAMPLE, MODEL=model, TOOLS=tools, SESSION_ID="complete")
    assert capsys.readouterr().out == "Starting new conversation\n"
    assert first["result"].output == "Paid."

    await run(COMPLETE_EXAMPLE, MODEL=model, TOOLS=tools, SESSION_ID="complete")
    assert capsys.readouterr().out == "Resuming conversation\n"
    assert paid == [3]

    await run(CLEAR, MODEL=model, SESSION_ID="complete")
    await run(COMPLETE_EXAMPLE, MODEL=says("Afresh"), TOOLS=tools, SESSION_ID="complete")
    assert capsys.readouterr().out == "Starting new conversation\n"


async def test_streaming_events_after_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    names = await run(STREAMING, MODEL=says("Hello!"))

    assert names["result"].output == "Hello!"


async def test_the_error_pattern_falls_back_to_another_model(capsys: pytest.CaptureFixture[str]) -> None:
    broken = ScriptedModel([ModelStep.raise_error(ModelBehaviorError("no sense"))])

    names = await run(ERROR_HANDLING, MODEL=broken, FALLBACK_MODEL=says("From the fallback"))

    assert capsys.readouterr().out == "Model error: no sense\n"
    assert names["result"].output == "From the fallback"


async def test_the_error_pattern_catches_the_other_errors_of_agents(capsys: pytest.CaptureFixture[str]) -> None:
    broken = ScriptedModel([ModelStep.raise_error(UserError("not allowed"))])

    await run(ERROR_HANDLING, MODEL=broken, FALLBACK_MODEL=says("never"))

    assert capsys.readouterr().out == "Agent error: not allowed\n"


async def test_a_session_keeps_the_conversation() -> None:
    model = says("Hello Alice", "Alice")

    names = await run(SESSION_MANAGEMENT, MODEL=model)

    assert names["result2"].output == "Alice"
    assert [item["role"] for item in model.last_call.input] == ["user", "assistant", "user"]
    assert model.last_call.input[0]["content"] == "Hello, my name is Alice"


async def test_a_durable_workflow_by_its_unique_id() -> None:
    model = says("Durable")
    names: dict[str, Any] = {"agent": Agent(name="assistant", model=model), "session": Session()}

    first = await run(DBOS_WORKFLOW, **names)
    again = await run(DBOS_WORKFLOW, **names)

    assert first["result"].output == again["result"].output == "Durable"
    assert first["result"].run_id == "unique-id"
    assert len(model.calls) == 1
    assert len(await names["session"].get_items()) == 2
