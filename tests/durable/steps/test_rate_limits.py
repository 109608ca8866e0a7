"""Rate limits of model calls: which hold for what, and how a call waits for them inside its step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
import sqlalchemy as sa
from agents import Agent, Model, ModelProvider, ModelSettings, function_tool
from agents.testing import function_call
from openai.types.responses import Response, ResponseCompletedEvent
from turns import Turns

from timestep import FallbackModel, run_agent_workflow, set_default_model_provider
from timestep.client import Client
from timestep.client.events import stream_run
from timestep.durable.process import running_steps
from timestep.durable.process.engine import engine as launched_engine
from timestep.durable.process.gate import gate
from timestep.durable.steps import rate_limits
from timestep.store.segments import start_segment

LIMITS = {
    "once": {"requests_per_minute": 1},
    "twice": {"requests_per_minute": 1},
    "crowd": {"requests_per_minute": 1},
    "wordy": {"tokens_per_minute": 9000},
    "openai/gpt-9": {"requests_per_minute": 500},
    "openai/": {"requests_per_minute": 5000},
    "lab/": {"requests_per_minute": 5000},
    "models.example:8000": {"requests_per_minute": 5000},
    "models.example": {"requests_per_minute": 5000},
}
OWED = "select coalesce(extract(epoch from {} - clock_timestamp()), 0)::float8 from timestep.rate_limits where key = %s"


@pytest.fixture(scope="module", autouse=True)
def _configured(settings_of_module: pytest.MonkeyPatch) -> None:
    settings_of_module.setenv("TIMESTEP_RATE_LIMITS", json.dumps(LIMITS))


@pytest.fixture(autouse=True)
def _fresh(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was taken before; a lifted limit is seen at once."""
    monkeypatch.setattr(rate_limits, "LONGEST_SLEEP_SECONDS", 0.05)
    monkeypatch.setattr(rate_limits, "_paused", {})
    engine.query("delete from timestep.rate_limits")
    yield
    set_default_model_provider(None)


class Named(Turns):
    """Turns of a model with a name and an address."""

    def __init__(self, *turns: Any, model: str | None = None, base_url: str | None = None) -> None:
        super().__init__(*turns)
        self.model, self.base_url = model, base_url

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        whole = await self.get_response(*args[:2])
        final = Response.model_construct(id="r", output=whole.output, usage=None)
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=final, sequence_number=0)


class Provider(ModelProvider):
    """Finds a model of any name."""

    def get_model(self, model_name: str | None) -> Model:
        return Named("done", model=(model_name or "").partition("/")[2] or model_name)


class Refusing(Named):
    """Refuses its first call with 429, and says for how long."""

    headers: dict[str, str] = {"retry-after": "3600"}  # noqa: RUF012 - no test changes it

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        if self.count == 0:
            self.count = 1
            request = httpx2.Request("POST", "http://models.test/v1/responses")
            response = httpx2.Response(429, headers=self.headers, request=request)
            raise openai.RateLimitError("slow down", response=response, body=None)
        return await super().get_response(system_instructions, input, *args, **kwargs)


def lift(engine: Any, key: str) -> None:
    """Let a limit through what comes next."""
    engine.query(
        "update timestep.rate_limits set requests_free_at = null, tokens_free_at = null, paused_until = null "
        "where key = %s", key,
    )  # fmt: skip


def waits(engine: Any, run_id: str) -> str | None:
    rows = engine.query("select waits_for from timestep.runs where id = %s", run_id)
    return rows[0]["waits_for"] if rows else None


@pytest.mark.parametrize(
    ("agent_model", "expected"),
    [
        pytest.param("gpt-9", {"openai/gpt-9", "openai/"}, id="a model and its provider"),
        pytest.param("openai/gpt-9", {"openai/gpt-9", "openai/"}, id="the same with its prefix"),
        pytest.param("gpt-1", {"openai/"}, id="a provider"),
        pytest.param("lab/gpt-9", {"lab/"}, id="a provider with the model of another"),
        pytest.param(Named("done", model="gpt-9"), {"openai/gpt-9"}, id="an instance, by its name"),
        pytest.param(Named("done", model="lab/m"), {"lab/"}, id="an instance with a prefix"),
        pytest.param(
            Named("done", model="m", base_url="https://Models.example:8000/v1"),
            {"models.example:8000", "models.example"},
            id="an instance, by its host",
        ),
        pytest.param(
            Named("done", model="m", base_url="http://ann:secret@models.example/v1"), {"models.example"}, id="no port"
        ),
        pytest.param(Named("done", model="m", base_url="http://other.example:8000"), set(), id="another host"),
        pytest.param(Named("done"), set(), id="neither name nor address"),
        pytest.param(FallbackModel("gpt-1", Named("done"), provider=Provider()), {"openai/"}, id="a fallback"),
        pytest.param(FallbackModel(Named("done", model="m"), "gpt-1", provider=Provider()), set(), id="not its second"),
    ],
)
async def test_a_limit_holds_by_name_prefix_or_host(
    engine: Any, new_id: str, agent_model: str | Model, expected: set[str]
) -> None:
    set_default_model_provider(Provider())
    await run_agent_workflow(Agent(name="worker", model=agent_model), "Go", workflow_id=new_id)
    taken = engine.query("select key from timestep.rate_limits where requests_free_at is not null")
    assert {row["key"] for row in taken} == expected


async def test_a_call_waits_inside_its_step_and_shows_it(engine: Any, new_id: str, until: Callable[..., Any]) -> None:
    @function_tool
    async def work() -> str:
        return "did"

    agent = Agent(
        name="worker", model=Named(function_call("work", {}, call_id="c1"), "done", model="once"), tools=[work]
    )
    running = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=new_id))
    await asyncio.to_thread(until, lambda: waits(engine, new_id) == "once", "it waits")
    async with Client() as client:
        run = await client.get_run(new_id)
        steps = [step.name for step in await client.list_steps(new_id)]
    assert (run.status, run.waits_for, run.waits_since is None) == ("running", "once", False)
    assert steps == ["model_turn:1:worker", "tool_call:1:work:c1"]
    lift(engine, "once")
    assert (await running).output == "done"
    assert waits(engine, new_id) is None
    assert engine.steps(new_id)[-1] == "model_turn:2:worker"


async def test_the_stream_says_that_a_run_waits(engine: Any, new_id: str) -> None:
    agent = Agent(name="worker", model=Named("done", model="once"))
    await run_agent_workflow(agent, "Go", workflow_id=f"{new_id}-first", stream=True)
    running = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True))
    events: list[dict[str, Any]] = []
    async for event in stream_run(new_id):
        events.append(event)
        if event["type"] == "waiting_for_rate_limit":
            lift(engine, "once")
    await running
    assert [event["type"] for event in events] == ["waiting_for_rate_limit", "turn_finished", "run_finished"]
    assert (events[0]["limit"], events[0]["agent"], events[0]["turn"]) == ("once", "worker", 1)
    assert 0 < events[0]["seconds"] <= 60


async def test_a_crowd_that_waits_holds_up_nobody(engine: Any, new_id: str, until: Callable[..., Any]) -> None:
    agent = Agent(name="worker", model=Named("done", model="crowd"))
    ids = [f"{new_id}-{number}" for number in range(30)]
    crowd = [asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=each)) for each in ids]
    waiting = "select count(*) from timestep.runs where waits_for = 'crowd'"
    await asyncio.to_thread(until, lambda: engine.value(waiting) == 29, "all but one wait")

    database = launched_engine().database
    free = Agent(name="free", model=Named("done"))
    assert (await run_agent_workflow(free, "Go", workflow_id=f"{new_id}-free")).output == "done"
    await asyncio.to_thread(until, lambda: gate.inside == 0, "a drain would wait for none of them")
    # The first of the line looks again and again in this test; all others hold nothing at all.
    assert database.engine.pool.checkedout() + database.autocommit_engine.pool.checkedout() <= 1  # type: ignore[attr-defined]

    while any(not each.done() for each in crowd):
        lift(engine, "crowd")
        await asyncio.sleep(0.02)
    assert (
        engine.value("select count(*) from timestep.runs where status = 'succeeded' and id like %s", f"{new_id}%") == 31
    )
    assert engine.value(waiting) == 0


async def test_they_go_on_in_the_order_in_which_they_came(
    engine: Any, new_id: str, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(rate_limits, "LONGEST_SLEEP_SECONDS", 2.0)

    class Noting(Named):
        async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(input if isinstance(input, str) else input[-1]["content"])
            return await super().get_response(system_instructions, input, *args, **kwargs)

    agent = Agent(name="worker", model=Noting("done", model="once"))
    runs = []
    for number in range(5):
        run_id = f"{new_id}-{number}"
        if number == 4:
            lift(engine, "once")  # those before it sleep, and it does not pass them
        runs.append(asyncio.ensure_future(run_agent_workflow(agent, str(number), workflow_id=run_id)))

        def is_known(run_id: str = run_id, number: int = number) -> bool:
            return str(number) in asked or waits(engine, run_id) is not None

        await asyncio.to_thread(until, is_known, f"{number} was asked, or waits")
    monkeypatch.setattr(rate_limits, "LONGEST_SLEEP_SECONDS", 0.05)
    while any(not run.done() for run in runs):
        lift(engine, "once")
        await asyncio.sleep(0.02)
    assert asked == ["0", "1", "2", "3", "4"]


async def test_a_run_that_is_cancelled_while_it_waits_takes_nothing(
    engine: Any, new_id: str, until: Callable[..., Any]
) -> None:
    model = Named("done", model="twice")
    agent = Agent(name="worker", model=model)
    await run_agent_workflow(agent, "Go", workflow_id=f"{new_id}-first")
    running = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=new_id))
    await asyncio.to_thread(until, lambda: waits(engine, new_id) == "twice", "it waits")
    owed = engine.value(OWED.format("requests_free_at"), "twice")
    async with Client() as client:
        await client.cancel_run(new_id)
        with pytest.raises(Exception, match="cancelled"):
            await running
        assert (await client.get_run(new_id)).waits_for is None
    await asyncio.to_thread(until, lambda: new_id not in running_steps.workflows_in_flight(), "its step is interrupted")
    assert model.count == 1
    assert engine.value(OWED.format("requests_free_at"), "twice") <= owed
    lift(engine, "twice")
    assert (await run_agent_workflow(agent, "Go", workflow_id=f"{new_id}-third")).output == "done"


async def test_neither_start_nor_end_of_a_segment_leaves_a_wait_that_was_lost(engine: Any, new_id: str) -> None:
    @function_tool
    async def work() -> str:
        engine.query("update timestep.runs set waits_for = 'lost' where id = %s", new_id)
        return "did"

    agent = Agent(name="worker", model=Named(function_call("work", {}, call_id="c1"), "done"), tools=[work])
    await run_agent_workflow(agent, "Go", workflow_id=new_id)
    assert waits(engine, new_id) is None

    engine.query("update timestep.runs set waits_for = 'lost' where id = %s", new_id)
    launched_engine().database.run_sync(
        start_segment, run_id=new_id, segment=2, request=None, input_digest="", executor_id="e",
        application_version="v", definition=None,
    )  # fmt: skip
    assert waits(engine, new_id) is None
    engine.query("update timestep.runs set status = 'succeeded' where id = %s", new_id)


async def test_what_an_estimate_took_too_much_is_given_back(engine: Any, new_id: str) -> None:
    owed: list[float] = []

    class Looking(Named):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            owed.append(engine.value(OWED.format("tokens_free_at"), "wordy"))
            return await super().get_response(*args, **kwargs)

    settings = ModelSettings(max_tokens=400)
    agent = Agent(name="worker", model=Looking("done", model="wordy"), model_settings=settings)
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000, "detail": "auto"}
    content = [{"type": "input_text", "text": "word " * 2400}, picture]
    await run_agent_workflow(agent, [{"role": "user", "content": content}], workflow_id=new_id)
    # 3,000 tokens of text, 1,000 of the picture, 400 of the answer, at 135 a second
    assert owed == [pytest.approx(4400 / 135, abs=3)]
    assert engine.value(OWED.format("tokens_free_at"), "wordy") < 1  # it has used two tokens


async def test_a_429_holds_up_the_model_at_its_host_for_all(
    engine: Any, new_id: str, until: Callable[..., Any]
) -> None:
    key = "slow@models.test"
    model = Refusing("done", model="slow", base_url="http://models.test/v1")
    agent, other = Agent(name="worker", model=model), Agent(name="other", model=Named("done", model="slow"))
    first = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=f"{new_id}-1"))
    await asyncio.to_thread(until, lambda: waits(engine, f"{new_id}-1") == key, "it waits for its next attempt")
    second = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=f"{new_id}-2"))
    await asyncio.to_thread(until, lambda: waits(engine, f"{new_id}-2") == key, "the next call waits too")
    assert (await run_agent_workflow(other, "Go", workflow_id=f"{new_id}-3")).output == "done"  # not at that host
    assert 3500 < engine.value(OWED.format("paused_until"), key) <= 3600
    assert model.count == 1

    lift(engine, key)
    assert [(await each).output for each in (first, second)] == ["done", "done"]
    assert engine.value("select requests from timestep.usage where run_id = %s", f"{new_id}-1") == 2


async def test_a_429_of_a_model_without_name_and_host_slows_nobody_else(engine: Any, new_id: str) -> None:
    model = Refusing("done")
    model.headers = {"retry-after-ms": "10"}
    await run_agent_workflow(Agent(name="worker", model=model), "Go", workflow_id=new_id)
    assert engine.query("select key from timestep.rate_limits") == []
    assert engine.value("select requests from timestep.usage where run_id = %s", new_id) == 2


async def test_executors_hear_of_a_pause_without_a_statement_a_call(
    engine: Any, new_id: str, until: Callable[..., Any]
) -> None:
    key = "slow@models.test"
    agent = Agent(name="worker", model=Named("done", model="slow", base_url="http://models.test/v1"))
    said: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "rate_limits" in statement and "where paused_until >" not in statement:
            said.append(statement)

    database = launched_engine().database
    for each in (database.engine, database.autocommit_engine):
        sa.event.listen(each, "before_cursor_execute", note)
    await run_agent_workflow(agent, "Go", workflow_id=f"{new_id}-1")
    assert said == []

    query = "insert into timestep.rate_limits (key, paused_until) values (%s, now() + interval '1 hour')"
    engine.query(query, key)  # as another executor writes it
    await asyncio.to_thread(until, lambda: key in rate_limits.paused_keys(), "the chores have looked")
    running = asyncio.ensure_future(run_agent_workflow(agent, "Go", workflow_id=new_id))
    await asyncio.to_thread(until, lambda: waits(engine, new_id) == key, "it waits")
    lift(engine, key)
    assert (await running).output == "done"


async def test_a_429_with_a_limit_pauses_what_the_limit_holds_for(
    engine: Any, new_id: str, until: Callable[..., Any]
) -> None:
    model = Refusing("done", model="m", base_url="http://models.example/v1")
    refused = asyncio.ensure_future(
        run_agent_workflow(Agent(name="worker", model=model), "Go", workflow_id=f"{new_id}-1")
    )
    await asyncio.to_thread(until, lambda: waits(engine, f"{new_id}-1"), "it waits for its next attempt")
    other = Agent(name="other", model=Named("done", model="other", base_url="http://models.example/v1"))
    running = asyncio.ensure_future(run_agent_workflow(other, "Go", workflow_id=new_id))
    await asyncio.to_thread(until, lambda: waits(engine, new_id) == "models.example", "another model waits")
    lift(engine, "models.example")
    assert [(await each).output for each in (refused, running)] == ["done", "done"]
