"""Model calls as steps: any model, retries inside the step, streams, events."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from agents import (
    Agent,
    Model,
    ModelBehaviorError,
    ModelProvider,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
    function_tool,
    retry_policies,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.usage import Usage

from timestep import register_agents, run_agent_workflow, stream_run
from timestep.errors import IncompleteModelResponseError

REQUEST = httpx.Request("POST", "http://provider.example/v1/responses")


def refusal(status: int, headers: dict[str, str] | None = None) -> openai.APIStatusError:
    kinds = {401: openai.AuthenticationError, 400: openai.BadRequestError, 429: openai.RateLimitError}
    kind = kinds.get(status, openai.InternalServerError)
    return kind(f"status {status}", response=httpx.Response(status, request=REQUEST, headers=headers), body=None)


def answers(*steps: Any, **options: Any) -> Agent[Any]:
    return Agent(name="assistant", model=ScriptedModel(steps), **options)


QUICK = ModelSettings(
    retry=ModelRetrySettings(
        max_retries=3,
        backoff={"initial_delay": 0.001, "jitter": False},
        policy=retry_policies.any(
            retry_policies.provider_suggested(),
            retry_policies.http_status([429, 500, 503]),
            retry_policies.network_error(),
        ),
    )
)

TWICE = ModelSettings(retry=ModelRetrySettings(max_retries=2, backoff={"initial_delay": 0.001, "jitter": False}))


@pytest.mark.parametrize(
    "error",
    [
        lambda: refusal(429, {"Retry-After": "0"}),
        lambda: refusal(500),
        lambda: refusal(503),
        lambda: openai.APIConnectionError(request=REQUEST),
        lambda: openai.APITimeoutError(request=REQUEST),
    ],
    ids=["429", "500", "503", "connection", "timeout"],
)
async def test_what_passes_is_asked_again_inside_one_step(engine: Any, error: Any, new_id: str) -> None:
    agent = answers(
        ModelStep.raise_error(error()),
        ModelStep.raise_error(error()),
        [assistant_message("at last")],
        model_settings=QUICK,
    )

    result = await run_agent_workflow(agent, "Go", workflow_id=new_id)

    assert result.output == "at last"
    assert len(agent.model.calls) == 3
    assert engine.steps(new_id) == ["model_turn:1:assistant"]


async def test_an_agent_without_retry_settings_is_asked_again_too(engine: Any, new_id: str) -> None:
    agent = answers(ModelStep.raise_error(refusal(429, {"Retry-After-Ms": "1"})), [assistant_message("at last")])

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "at last"
    assert len(agent.model.calls) == 2


async def test_the_wait_that_the_provider_names_is_kept(
    monkeypatch: pytest.MonkeyPatch, engine: Any, new_id: str
) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float, *arguments: Any) -> Any:
        waits.append(seconds)
        return await sleep(0)

    agent = answers(ModelStep.raise_error(refusal(429, {"Retry-After": "7"})), [assistant_message("at last")])
    import agents.run_internal.model_retry as sdk_retry

    monkeypatch.setattr(sdk_retry.asyncio, "sleep", note)

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "at last"
    assert 7.0 in waits


@pytest.mark.parametrize("status", [400, 401])
async def test_a_refusal_is_not_asked_again(engine: Any, status: int, new_id: str) -> None:
    agent = answers(ModelStep.raise_error(refusal(status)))

    for _ in range(2):
        with pytest.raises(openai.APIStatusError) as found:
            await run_agent_workflow(agent, "Go", workflow_id=new_id)
        assert found.value.status_code == status
    assert len(agent.model.calls) == 1


async def test_the_time_limit_of_a_model_is_inside_its_step(engine: Any, new_id: str) -> None:
    class Slow(ScriptedModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            if len(self.calls) == 0:
                self._calls.append(None)  # type: ignore[arg-type]
                await asyncio.Event().wait()
            return await super().get_response(*args, **kwargs)

        @property
        def calls(self) -> Any:
            return tuple(self._calls)

    agent = Agent(
        name="assistant",
        model=Slow([[assistant_message("at last")]]),
        model_settings=ModelSettings(
            timeout=0.05,
            retry=ModelRetrySettings(
                max_retries=2, backoff={"initial_delay": 0.001}, policy=retry_policies.network_error()
            ),
        ),
    )

    assert (await run_agent_workflow(agent, "Go", workflow_id=new_id)).output == "at last"
    assert engine.steps(new_id) == ["model_turn:1:assistant"]


class Provider(ModelProvider):
    def __init__(self, model: Model) -> None:
        self.model, self.asked = model, []

    def get_model(self, model_name: str | None) -> Model:
        self.asked.append(model_name)
        return self.model


async def test_a_model_name_goes_through_the_registered_provider(engine: Any, new_id: str) -> None:
    provider = Provider(ScriptedModel([[assistant_message("named")]]))
    agent = Agent(name="assistant", model="shop-model")
    register_agents(agent, run_config=RunConfig(model_provider=provider))

    result = await run_agent_workflow("assistant", "Go", workflow_id=new_id)
    await engine.replay(new_id)

    assert result.output == "named"
    assert provider.asked[0] == "shop-model"
    assert len(provider.model.calls) == 1
    [row] = engine.query("select model, provider from timestep.usage where run_id = %s", new_id)
    assert row["model"] == "shop-model"


async def test_a_model_name_of_the_run_config_is_stored_with_the_run(engine: Any, new_id: str) -> None:
    provider = Provider(ScriptedModel([[assistant_message("named")]]))
    agent = Agent(name="assistant")
    register_agents(agent, run_config=RunConfig(model_provider=provider))

    await run_agent_workflow(
        "assistant", "Go", workflow_id=new_id,
        run_config=RunConfig(model="cheap", model_settings=ModelSettings(temperature=0.5)),
    )  # fmt: skip

    assert provider.asked[0] == "cheap"
    assert provider.model.last_call.model_settings.temperature == 0.5
    stored = engine.run(new_id)["options"]["run_config"]
    assert stored["model"] == "cheap"


async def test_the_journal_holds_the_model_s_message_readable_in_sql(engine: Any, new_id: str) -> None:
    await run_agent_workflow(answers([assistant_message("Hello from SQL")]), "Go", workflow_id=new_id)

    text = engine.value(
        "select output::json -> 'ok' -> 'output' -> 0 -> 'content' -> 0 ->> 'text' from dbos.operation_outputs"
        " where workflow_uuid = %s and function_name = 'model_turn:1:assistant'",
        new_id,
    )
    assert text == "Hello from SQL"


async def test_usage_is_counted_for_each_turn_and_over_the_run(engine: Any, new_id: str) -> None:
    @function_tool
    def look() -> str:
        return "seen"

    first = ModelStep(
        output=[function_call("look", {}, call_id="c1")],
        usage=Usage(requests=1, input_tokens=10, output_tokens=3, total_tokens=13),
    )
    second = ModelStep(
        output=[assistant_message("done")], usage=Usage(requests=1, input_tokens=20, output_tokens=5, total_tokens=25)
    )
    agent = answers(first, second, tools=[look])

    live = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    recorded = await run_agent_workflow(agent, "Go", workflow_id=new_id)
    _, replayed = await engine.replay(new_id)

    for result in (live, recorded, replayed):
        usage = result.usage
        assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.total_tokens) == (2, 30, 8, 38)
    rows = engine.query("select * from timestep.usage where run_id = %s order by step", new_id)
    assert [(row["step"], row["input_tokens"], row["output_tokens"]) for row in rows] == [
        ("model_turn:1:assistant", 10, 3),
        ("model_turn:2:assistant", 20, 5),
    ]
    run = engine.run(new_id)
    assert (run["requests"], run["input_tokens"], run["output_tokens"]) == (2, 30, 8)


async def test_a_streamed_run_writes_numbered_events_that_any_client_reads(engine: Any, new_id: str) -> None:
    @function_tool
    def look(thing: str) -> str:
        return f"{thing} seen"

    agent = answers(
        [function_call("look", {"thing": "sea"}, call_id="c1")], [assistant_message("I see the sea")], tools=[look]
    )

    result = await run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True)
    events = [event async for event in stream_run(new_id)]

    assert result.output == "I see the sea"
    kinds = [event["type"] for event in events]
    assert kinds == [
        "turn_finished", "tool_started", "tool_finished", "text_delta", "turn_finished", "run_finished",
    ]  # fmt: skip
    assert "".join(event["text"] for event in events if event["type"] == "text_delta") == "I see the sea"
    assert [event["turn"] for event in events[:3]] == [1, 1, 1]
    assert events[1]["tool"] == "look"
    assert events[1]["arguments"] == '{"thing":"sea"}'
    assert events[-1]["status"] == "succeeded"
    assert {event["path"] for event in events[:-1]} == {""}
    assert [event["offset"] for event in events] == sorted(event["offset"] for event in events)
    later = [event async for event in stream_run(new_id, events[3]["offset"])]
    assert later == events[3:]
    assert engine.steps(new_id).count("model_turn:1:assistant") == 1


async def test_the_answer_of_a_streamed_run_is_that_of_a_run_without_a_stream(engine: Any, new_id: str) -> None:
    await run_agent_workflow(answers([assistant_message("same")]), "Go", workflow_id=new_id)
    await run_agent_workflow(answers([assistant_message("same")]), "Go", workflow_id=new_id + "-s", stream=True)

    plain, streamed = (engine.output(run_id, "model_turn:1:assistant") for run_id in (new_id, new_id + "-s"))
    assert streamed["ok"]["output"] == plain["ok"]["output"]


async def test_a_run_without_stream_writes_no_events(engine: Any, new_id: str) -> None:
    await run_agent_workflow(answers([assistant_message("quiet")]), "Go", workflow_id=new_id)

    assert engine.value("select count(*) from dbos.streams where workflow_uuid = %s", new_id) == 0


async def test_a_stream_without_a_final_response_is_an_error_and_no_answer(engine: Any, new_id: str) -> None:
    cut = ModelStep.stream([])
    agent = answers(cut, cut, cut, [assistant_message("too late")], model_settings=TWICE)

    with pytest.raises((IncompleteModelResponseError, ModelBehaviorError)):
        await run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True)

    assert len(agent.model.calls) == 3
    assert "error" in engine.output(new_id, "model_turn:1:assistant")


async def test_a_cut_stream_is_asked_for_again_and_the_new_attempt_is_told(engine: Any, new_id: str) -> None:
    agent = answers(ModelStep.stream([]), [assistant_message("whole")], model_settings=TWICE)

    result = await run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True)
    events = [event async for event in stream_run(new_id)]

    assert result.output == "whole"
    assert [event["attempt"] for event in events if event["type"] == "text_delta"] == ["1.1"]


async def test_a_failed_streamed_run_ends_its_stream(engine: Any, new_id: str) -> None:
    agent = answers(ModelStep.raise_error(refusal(401)))

    with pytest.raises(openai.AuthenticationError):
        await run_agent_workflow(agent, "Go", workflow_id=new_id, stream=True)
    events = [event async for event in stream_run(new_id)]

    assert (events[-1]["type"], events[-1]["status"]) == ("run_finished", "failed")
