"""A model call over HTTP: one step whatever happens on the way, attempts inside it, never half an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from agents import Agent, ModelBehaviorError, ModelSettings, function_tool
from agents.exceptions import ModelTimeoutError
from dbos import DBOS
from provider_server import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Answer,
    Cut,
    Drop,
    Half,
    ProviderServer,
    Refusal,
    Reply,
    Silence,
)

from timestep import run_agent, run_agent_workflow, stream_run
from timestep.durable.process.engine import engine
from timestep.errors import IncompleteModelResponseError

pytestmark = pytest.mark.usefixtures("launched")

MakeAgent = Callable[..., Agent[Any]]
Steps = Callable[[str], list[str]]

TURN = "model_turn:1:assistant"
LIMIT = 1.5
SMOKE = ("ends", "malformed")
BROKEN = [
    pytest.param(Refusal(status=429), id="429", marks=pytest.mark.smoke),
    pytest.param(Refusal(status=500), id="500"),
    pytest.param(Refusal(status=503), id="503"),
    pytest.param(Drop(), id="dropped"),
    pytest.param(Drop(is_reset=True), id="reset"),
    pytest.param(Half(is_closed=True), id="half and closed"),
    pytest.param(Half(is_closed=False), id="half as if it were all"),
]
BROKEN_STREAM = [
    pytest.param(Cut(text="One two", how=how), id=how, marks=pytest.mark.smoke if how in SMOKE else ())
    for how in ("ends", "disconnects", "malformed", "stalls", "error")
]


def limit_of(how: str) -> float | None:
    """The time limit of an attempt, where the fault needs one: a slow machine reaches it too."""
    return LIMIT if how == "stalls" else None


async def events_of(run_id: str) -> list[dict[str, Any]]:
    return [event async for event in stream_run(run_id, raw=True)]


def text_of(events: list[dict[str, Any]], attempt: str) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text_delta" and event["attempt"] == attempt)


@pytest.mark.smoke
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_answer_is_one_request_and_one_step(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, steps: Steps, stream: bool
) -> None:
    provider.script(Answer(text="One two three"))

    result = await run_agent_workflow(make_agent(), "Count", stream=stream, workflow_id=new_id)

    assert result.output.split() == ["One", "two", "three"]
    assert steps(new_id) == [TURN]
    assert [bool(request.body.get("stream")) for request in provider.requests] == [stream]
    assert (result.usage.requests, result.usage.input_tokens, result.usage.output_tokens) == (
        1,
        INPUT_TOKENS,
        OUTPUT_TOKENS,
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_passing_fault_is_tried_again_inside_the_step(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, steps: Steps, fault: Reply, stream: bool
) -> None:
    provider.script(fault, Answer(text="One two three"))

    result = await run_agent_workflow(make_agent(), "Count", stream=stream, workflow_id=new_id)

    assert result.output.split() == ["One", "two", "three"]
    assert steps(new_id) == [TURN]
    assert len(provider.requests) == 2
    assert (result.usage.requests, result.usage.input_tokens, result.usage.output_tokens) == (
        2,
        INPUT_TOKENS,
        OUTPUT_TOKENS,
    )


async def test_a_silent_provider_is_asked_again_after_the_time_limit_of_an_attempt(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, steps: Steps
) -> None:
    provider.script(Silence(), Answer(text="One two three"))

    result = await run_agent_workflow(make_agent(timeout=LIMIT), "Count", workflow_id=new_id)

    assert result.output.split() == ["One", "two", "three"]
    assert steps(new_id) == [TURN]
    assert len(provider.requests) == result.usage.requests == 2


@pytest.mark.parametrize("fault", BROKEN_STREAM)
async def test_a_broken_stream_is_superseded_by_a_newer_attempt(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, steps: Steps, fault: Cut
) -> None:
    provider.script(fault, Answer(text="Three four five"))

    result = await run_agent_workflow(make_agent(timeout=limit_of(fault.how)), "Count", stream=True, workflow_id=new_id)
    events = await events_of(new_id)

    assert result.output.split() == ["Three", "four", "five"]
    assert text_of(events, "1.1").split() == ["Three", "four", "five"]
    assert "One two ".startswith(text_of(events, "1.0"))
    [finished] = [event for event in events if event["type"] == "turn_finished"]
    assert finished["attempt"] == "1.1"
    assert finished["usage"] == {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    assert steps(new_id) == [TURN]
    assert len(provider.requests) == result.usage.requests == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("ends", (ModelBehaviorError, IncompleteModelResponseError)),
        ("disconnects", openai.APIConnectionError),
        ("malformed", ValueError),
        ("stalls", ModelTimeoutError),
        ("error", (openai.APIError, IncompleteModelResponseError)),
    ],
)
async def test_a_stream_that_always_breaks_fails_the_run_and_half_an_answer_is_never_recorded(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, fault: str, error: type[Exception]
) -> None:
    provider.script(*[Cut(text="One two", how=fault)] * 9)

    with pytest.raises(error):
        await run_agent_workflow(
            make_agent(timeout=limit_of(fault), max_retries=1),
            "Count",
            stream=True,
            workflow_id=new_id,
        )

    [recorded] = [
        step["output"] for step in engine().client.list_workflow_steps(new_id) if step["function_name"] == TURN
    ]
    assert set(recorded) == {"error"}
    assert len(provider.requests) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_next_attempt_comes_no_sooner_than_the_provider_asks(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, stream: bool
) -> None:
    provider.script(Refusal(status=429, headers={"retry-after": "1"}), Answer(text="One"))

    result = await run_agent_workflow(make_agent(), "Count", stream=stream, workflow_id=new_id)

    refused, answered = provider.requests
    assert answered.at - refused.at >= 1
    assert result.output.split() == ["One"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("status", "error"),
    [(400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError)],
)
async def test_a_refusal_for_good_is_not_tried_again(
    make_agent: MakeAgent,
    provider: ProviderServer,
    new_id: str,
    steps: Steps,
    status: int,
    error: type[Exception],
    stream: bool,
) -> None:
    provider.script(Refusal(status=status), Answer(text="Too late"))

    with pytest.raises(error):
        await run_agent_workflow(make_agent(), "Count", stream=stream, workflow_id=new_id)

    assert len(provider.requests) == 1
    assert steps(new_id) == [TURN]


@pytest.mark.smoke
async def test_a_failure_for_good_in_mid_stream_is_not_tried_again(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    provider.script(Cut(text="One two", how="refusal"), Answer(text="Too late"))

    with pytest.raises((openai.APIError, ModelBehaviorError)):
        await run_agent_workflow(make_agent(), "Count", stream=True, workflow_id=new_id)

    assert len(provider.requests) == 1


async def test_a_conversation_that_another_request_holds_is_asked_for_again(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    provider.script(Refusal(status=400, code="conversation_locked"), Answer(text="One"))

    result = await run_agent_workflow(make_agent(), "Count", workflow_id=new_id)

    assert result.output == "One"
    assert len(provider.requests) == 2


async def test_words_that_a_caller_has_seen_are_not_streamed_to_it_again(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    agent = make_agent()

    async def own() -> str:
        return (await run_agent(agent, "Count", stream=True)).output

    provider.script(Cut(text="One two", how="disconnects"), Answer(text="Too late"))

    with pytest.raises(openai.APIConnectionError):
        await DBOS.workflow(name=new_id)(own)()

    assert len(provider.requests) == 1


async def test_a_caller_that_has_seen_nothing_yet_gets_the_second_attempt(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    agent = make_agent()

    async def own() -> str:
        return (await run_agent(agent, "Count", stream=True)).output

    provider.script(Refusal(status=429), Answer(text="One two"))

    assert (await DBOS.workflow(name=new_id)(own)()).split() == ["One", "two"]
    assert len(provider.requests) == 2


async def test_attempts_have_a_limit_that_is_the_engines_own(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    provider.script(*[Refusal(status=500)] * 20)

    with pytest.raises(openai.InternalServerError):
        await run_agent_workflow(make_agent(), "Count", workflow_id=new_id)

    assert len(provider.requests) == 5


async def test_an_agent_sets_the_number_of_its_attempts(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    provider.script(Refusal(status=500), Answer(text="Too late"))

    with pytest.raises(openai.InternalServerError):
        await run_agent_workflow(make_agent(max_retries=0), "Count", workflow_id=new_id)

    assert len(provider.requests) == 1


async def test_a_run_without_settings_of_its_own_tries_again(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    provider.script(Drop(), Answer(text="One"))

    result = await run_agent_workflow(make_agent(model_settings=ModelSettings()), "Count", workflow_id=new_id)

    assert result.output == "One"
    assert len(provider.requests) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_call_of_an_unknown_tool_fails_the_run(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, steps: Steps, stream: bool
) -> None:
    provider.script(Answer(tool="no_such_tool"))

    with pytest.raises(ModelBehaviorError, match="no_such_tool"):
        await run_agent_workflow(make_agent(), "Count", stream=stream, workflow_id=new_id)

    assert len(provider.requests) == 1
    assert steps(new_id) == [TURN]


@pytest.mark.smoke
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_malformed_tool_arguments_are_told_to_the_model(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str, steps: Steps, stream: bool
) -> None:
    calls: list[int] = []

    @function_tool
    def count(number: int) -> str:
        calls.append(number)
        return "counted"

    provider.script(
        Answer(tool="count", arguments='{"number": '),
        Answer(tool="count", arguments='{"number": 3}'),
        Answer(text="Done"),
    )

    result = await run_agent_workflow(make_agent(tools=[count]), "Count", stream=stream, workflow_id=new_id)

    assert result.output.split() == ["Done"]
    assert calls == [3]
    first, second = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
    assert "error" in first.lower()
    assert second == "counted"
    assert [step.split(":")[0] for step in steps(new_id)] == [
        "model_turn", "tool_call", "model_turn", "tool_call", "model_turn",
    ]  # fmt: skip
    assert len(provider.requests) == result.usage.requests == 3


async def test_tools_that_follow_a_second_attempt_run_once(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    calls: list[int] = []

    @function_tool
    def count(number: int) -> str:
        calls.append(number)
        return "counted"

    provider.script(
        Cut(text="I count", how="disconnects"), Answer(tool="count", arguments='{"number": 3}'), Answer(text="Done")
    )

    result = await run_agent_workflow(make_agent(tools=[count]), "Count", stream=True, workflow_id=new_id)

    assert result.output.split() == ["Done"]
    assert calls == [3]


async def test_the_recorded_answer_of_a_second_attempt_is_not_asked_for_again(
    make_agent: MakeAgent, provider: ProviderServer, new_id: str
) -> None:
    agent = make_agent()
    provider.script(Cut(text="One", how="ends"), Answer(text="One two"))

    first = await run_agent_workflow(agent, "Count", stream=True, workflow_id=new_id)
    again = await run_agent_workflow(agent, "Count", stream=True, workflow_id=new_id)

    assert again.output == first.output
    assert again.usage.requests == first.usage.requests == 2
    assert len(provider.requests) == 2
