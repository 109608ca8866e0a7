"""Configure, launch, stop: at once, twice, awaited, under a loop and without; what an earlier launch left goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from agents import Agent, Model, ModelResponse, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.usage import Usage

import timestep
from timestep import (
    Session,
    cleanup_dbos,
    configure_dbos,
    current_tool_call,
    ensure_dbos_launched,
    get_dbos_connection_string,
    is_dbos_launched,
    queue_agent_workflow,
    register_agents,
    run_agent_workflow,
    wait_run,
)
from timestep.durable.process.engine import engine as launched_engine
from timestep.errors import DatabaseNotReadyError, SettingsError
from timestep.runtime import launch
from timestep.runtime.chores import Chores


@pytest.fixture
def database(journal_of: Any, new_database: Any, settings_of_module: pytest.MonkeyPatch) -> Iterator[Any]:
    """A database of the test's own, and an engine that the test launches."""
    cleanup_dbos()
    name = new_database()
    settings_of_module.setenv("TIMESTEP_APP_NAME", name)
    yield journal_of(name)
    cleanup_dbos()


def says(*texts: str, name: str = "assistant") -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel([[assistant_message(text)] for text in texts]))


def test_without_a_loop_they_act_at_once(database: Any) -> None:
    assert not is_dbos_launched()
    configure_dbos()
    assert not is_dbos_launched()
    ensure_dbos_launched()
    assert is_dbos_launched()
    cleanup_dbos()
    assert not is_dbos_launched()


async def test_under_a_running_loop_they_act_at_once_too(database: Any) -> None:
    configure_dbos()
    ensure_dbos_launched()
    assert is_dbos_launched()
    assert (await run_agent_workflow(says("Hello"), "Hi")).output == "Hello"
    cleanup_dbos()
    assert not is_dbos_launched()


async def test_they_may_be_awaited(database: Any) -> None:
    await configure_dbos()
    await ensure_dbos_launched()
    assert is_dbos_launched()
    await cleanup_dbos()
    assert not is_dbos_launched()


async def test_each_may_be_called_twice(database: Any) -> None:
    for _ in range(2):
        configure_dbos()
    for _ in range(2):
        ensure_dbos_launched()
    configure_dbos()
    assert (await run_agent_workflow(says("Hello"), "Hi")).output == "Hello"
    for _ in range(2):
        cleanup_dbos()
    assert not is_dbos_launched()


def test_many_threads_launch_one_engine(database: Any) -> None:
    threads = [threading.Thread(target=ensure_dbos_launched) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert is_dbos_launched()
    assert database.value("select count(*) from timestep.executors") == 1


@pytest.mark.parametrize("queues", [("slow-lane",), None])
async def test_whatever_the_queues_of_a_process_are_next_segments_go_on_in_it(
    database: Any, new_id: str, queues: tuple[str, ...] | None
) -> None:
    @function_tool(needs_approval=True)
    def pay() -> str:
        return "paid"

    model = ScriptedModel([[function_call("pay", {}, call_id="c1")], [assistant_message("done")]])
    ensure_dbos_launched(queues=queues)
    agent = Agent(name="assistant", tools=[pay], model=model)
    handle = queue_agent_workflow(agent, "Pay", queue_name="slow-lane", workflow_id=new_id)
    await asyncio.to_thread(database.wait_for_status, new_id, "interrupted")
    await timestep.approve(new_id, by="ann")
    assert (await handle.get_result()).output == "done"


async def test_a_run_launches_the_engine_by_itself(database: Any) -> None:
    assert (await run_agent_workflow(says("Hello"), "Hi")).output == "Hello"
    assert is_dbos_launched()


async def test_a_run_is_read_again_after_a_stop_and_a_launch(database: Any, new_id: str) -> None:
    agent = says("Hello")
    await run_agent_workflow(agent, "Hi", workflow_id=new_id)
    cleanup_dbos()

    assert (await run_agent_workflow(agent, "Hi", workflow_id=new_id)).output == "Hello"
    assert len(agent.model.calls) == 1


def test_each_event_loop_of_a_program_can_use_the_engine(database: Any) -> None:
    agent = says("one", "two", "three")

    async def run() -> str:
        return (await run_agent_workflow(agent, "Hi", "s")).output

    assert [asyncio.run(run()) for _ in range(3)] == ["one", "two", "three"]


def test_the_queues_of_the_settings_are_made(database: Any, settings_of_module: pytest.MonkeyPatch) -> None:
    settings_of_module.setenv("TIMESTEP_QUEUES", '{"reports": {"global_concurrency": 2, "rate_limit": 50}}')
    try:
        ensure_dbos_launched()
    finally:
        settings_of_module.delenv("TIMESTEP_QUEUES")

    [made] = database.query("select concurrency, rate_limit_max from dbos.queues where name = 'reports'")
    assert made == {"concurrency": 2, "rate_limit_max": 50}


def test_the_database_of_another_application_is_refused_and_no_connection_is_left(
    database: Any, server: Any, until: Any
) -> None:
    ensure_dbos_launched()
    cleanup_dbos()
    database.query("update dbos.queues set application_name = 'shop'")

    with pytest.raises(SettingsError, match="already registered by application 'shop'") as refused:
        ensure_dbos_launched()

    assert "PG_CONNECTION_URI" in refused.value.hint
    assert not is_dbos_launched()
    cleanup_dbos()
    count = "select count(*) from pg_stat_activity where datname = %s"
    with server.connect("postgres", autocommit=True) as connection:
        until(lambda: connection.execute(count, [database.name]).fetchone() == (0,), "all connections are closed")


def test_a_run_whose_event_loop_has_ended_goes_on_in_this_process(database: Any, new_id: str) -> None:
    bodies: list[str] = []

    @function_tool
    async def act() -> str:
        """Act."""
        bodies.append("began")
        if len(bodies) == 1:
            await asyncio.sleep(600)
        return "ok"

    turns = [[function_call("act", {}, call_id="c1")], [assistant_message("done")]]
    agent = Agent(name="assistant", tools=[act], model=ScriptedModel(turns))
    register_agents(agent)

    async def leave() -> None:
        task = asyncio.create_task(run_agent_workflow(agent, "Hi", workflow_id=new_id))
        while not bodies:
            await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(leave())
    mine = launched_engine()
    chores = Chores(mine.connector, executor_id=mine.executor_id, version=mine.application_version)
    for _ in range(2):
        assert database.status(new_id) == "running"
        chores._recover_lost()  # pyright: ignore[reportPrivateUsage] - due only every ten seconds

    assert asyncio.run(wait_run(new_id)).output == "done"
    assert bodies == ["began", "began"]


def test_the_connection_string_opens_the_database(database: Any) -> None:
    configure_dbos()
    ensure_dbos_launched()

    with psycopg.connect(get_dbos_connection_string()) as connection:
        row = connection.execute("select current_database(), count(*) from timestep.runs").fetchone()
    assert row == (database.name, 0)


def test_a_url_as_argument_is_used(database: Any, server: Any, new_database: Any) -> None:
    other = new_database()

    configure_dbos(name="shop", system_database_url=server.url(other))
    ensure_dbos_launched()

    with psycopg.connect(get_dbos_connection_string()) as connection:
        assert connection.execute("select current_database()").fetchone() == (other,)


def test_a_malformed_url_is_refused_at_once(database: Any) -> None:
    with pytest.raises(SettingsError):
        configure_dbos(system_database_url="mysql://localhost/shop")
    assert not is_dbos_launched()


def test_a_server_that_is_down_is_a_clear_error_and_the_next_launch_works(
    database: Any, settings_of_module: pytest.MonkeyPatch
) -> None:
    configure_dbos(system_database_url="postgresql://nobody@127.0.0.1:1/shop")
    with pytest.raises(DatabaseNotReadyError, match=r"127\.0\.0\.1:1/shop") as found:
        ensure_dbos_launched()
    assert "PG_CONNECTION_URI" in found.value.hint
    assert not is_dbos_launched()

    cleanup_dbos()
    ensure_dbos_launched()
    assert is_dbos_launched()


class Deciding(Model):
    """Asks for one call of `work`, then answers with what it returned."""

    def __init__(self) -> None:
        self.count = 0

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.count += 1
        found = [
            item["output"] for item in input if isinstance(item, dict) and item.get("type") == "function_call_output"
        ]
        output: Any = assistant_message(f"done: {found[0]}") if found else function_call("work", {}, call_id="c1")
        return ModelResponse(output=[output], usage=Usage(requests=1), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def test_a_run_that_a_stop_interrupted_goes_on_after_the_next_launch(database: Any, until: Any, new_id: str) -> None:
    calls, started = [], threading.Event()

    @function_tool
    async def work() -> str:
        call = current_tool_call()
        calls.append((call.idempotency_key, call.attempt))
        started.set()
        if call.attempt == 1:
            await asyncio.Event().wait()
        return f"attempt {call.attempt}"

    agent = Agent(name="worker", tools=[work], model=Deciding())
    ensure_dbos_launched()
    queue_agent_workflow(agent, "Work", f"s-{new_id}", workflow_id=new_id)
    assert started.wait(60)

    cleanup_dbos()
    assert database.status(new_id) == "running"
    ensure_dbos_launched()
    until(lambda: database.status(new_id) == "succeeded", "the run is done")

    assert database.run(new_id)["output"] == "done: attempt 2"
    assert calls == [(f"{new_id}:1:c1", 1), (f"{new_id}:1:c1", 2)]
    assert agent.model.count == 2
    assert len(asyncio.run(Session(f"s-{new_id}").get_items())) == 4
    assert database.run(new_id)["attempt"] == 2


def test_two_launches_have_two_executor_ids(database: Any) -> None:
    ids = []
    for _ in range(2):
        ensure_dbos_launched()
        asyncio.run(run_agent_workflow(says("Hello"), "Hi"))  # type: ignore[arg-type]
        ids.append(database.value("select executor_id from timestep.runs order by created_at desc limit 1"))
        cleanup_dbos()

    assert len(set(ids)) == 2


def test_public_names_load_lazily_and_are_all_there() -> None:
    for name in timestep.__all__:
        assert getattr(timestep, name) is not None
    assert set(dir(timestep)) == set(timestep.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        timestep.nothing  # noqa: B018 - reading it raises


async def test_a_queued_run_that_is_taken_before_the_engine_is_in_place_waits_for_it(
    database: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = says("Hello")
    ensure_dbos_launched(queues=())
    queue_agent_workflow(agent, "Hi", workflow_id=new_id)
    cleanup_dbos()
    separate = launch.dbos_sdk.separate_tool_threads

    def separate_late(*args: Any, **kwargs: Any) -> None:
        database.wait_for(f"select 1 from dbos.workflow_status where workflow_uuid = '{new_id}' and status = 'PENDING'")
        separate(*args, **kwargs)

    monkeypatch.setattr(launch.dbos_sdk, "separate_tool_threads", separate_late)
    ensure_dbos_launched()

    assert (await timestep.wait_run(new_id)).output == "Hello"
    assert database.value("select recovery_attempts from dbos.workflow_status") == 1


async def test_a_stop_fails_no_run_that_is_under_way(
    database: Any, new_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[str] = []
    entered, left = threading.Event(), threading.Event()

    @function_tool
    def dig() -> str:
        """Dig."""
        bodies.append("dig")
        entered.set()
        left.wait(10)
        return "dug"

    model = ScriptedModel([[function_call("dig", {}, call_id="call_1")], [assistant_message("Done")]])
    agent = Agent(name="digger", model=model, tools=[dig])
    ensure_dbos_launched()
    queue_agent_workflow(agent, "Hi", workflow_id=new_id)
    await asyncio.to_thread(entered.wait, 10)
    rest = launch.Executor.rest

    def rest_late(self: Any) -> None:
        left.set()  # the tool ends while the engine stops
        database.wait_for("select 1 from dbos.operation_outputs where function_name like 'tool_call%%'")
        rest(self)

    monkeypatch.setattr(launch.Executor, "rest", rest_late)
    await asyncio.to_thread(cleanup_dbos)  # the run executes in this loop
    monkeypatch.undo()
    assert database.status(new_id) == "running"
    ensure_dbos_launched()

    assert (await timestep.wait_run(new_id)).output == "Done"
    assert bodies == ["dig"]
