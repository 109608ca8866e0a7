"""How long a failed model call waits for its next attempt, where a test over HTTP would have to wait as long."""

from __future__ import annotations

import httpx2
import openai
import pytest
from agents import ModelRetryBackoffSettings, ModelRetrySettings, OpenAIChatCompletionsModel
from openai import AsyncOpenAI

from timestep.durable.steps.model_retry import seconds_to_retry

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")


def refused(status: int, **headers: str) -> openai.APIStatusError:
    """An answer with an error status, as the client raises it."""
    response = httpx2.Response(
        status, headers={name.replace("_", "-"): text for name, text in headers.items()}, request=REQUEST
    )
    kind = openai.RateLimitError if status == 429 else openai.InternalServerError
    return kind("refused", response=response, body=None)


async def seconds(
    error: Exception, *, attempt: int = 1, own: ModelRetrySettings | None = None, **options: bool
) -> float | None:
    async with AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="none") as client:
        return await seconds_to_retry(
            error, attempt=attempt, model=OpenAIChatCompletionsModel("any", client), own=own,
            **({"stream": True, "was_seen": False, "is_unsafe": False} | options),
            previous_response_id=None, conversation_id=None,
        )  # fmt: skip


@pytest.mark.parametrize("asked", [90, 3600])
async def test_a_long_wait_is_as_long_as_the_provider_asks(asked: int) -> None:
    assert await seconds(refused(429, retry_after=str(asked))) == asked


async def test_milliseconds_are_understood() -> None:
    assert await seconds(refused(503, retry_after_ms="1500")) == 1.5


async def test_waits_grow_and_have_a_limit() -> None:
    waits = [await seconds(refused(500), attempt=attempt) for attempt in (1, 2, 3, 4)]

    assert None not in waits
    assert waits == sorted(waits)
    assert await seconds(refused(500), attempt=5) is None


async def test_what_an_agent_does_not_set_stays_as_it_is() -> None:
    at_once = ModelRetrySettings(backoff=ModelRetryBackoffSettings(initial_delay=0, max_delay=0))

    assert await seconds(refused(500), attempt=4, own=at_once) == 0
    assert await seconds(refused(500), attempt=5, own=at_once) is None


async def test_a_policy_of_the_agents_own_decides() -> None:
    never = ModelRetrySettings(policy=lambda _: False)

    assert await seconds(refused(500), own=never) is None


async def test_an_answer_of_which_a_caller_has_seen_a_part_is_not_asked_for_again() -> None:
    lost = openai.APIConnectionError(request=REQUEST)

    assert await seconds(lost) is not None
    assert await seconds(lost, was_seen=True) is None


async def test_a_provider_that_may_have_called_tools_of_this_process_is_not_asked_again() -> None:
    assert await seconds(openai.APIConnectionError(request=REQUEST), is_unsafe=True) is None
