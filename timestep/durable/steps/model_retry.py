"""Which failed model calls are made again, and when. The attempts of a call are all inside its one step.

The engine alone counts attempts: the retries of a provider's client are off inside a durable run, so that the limit is
one number and `Retry-After` holds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import openai
from agents import Model, ModelBehaviorError, ModelRetrySettings
from agents.retry import (
    ModelRetryAdviceRequest,
    ModelRetryBackoffSettings,
    RetryPolicyContext,
    retry_policies,
)

from timestep.durable.seams import agents_sdk
from timestep.errors import IncompleteModelResponseError
from timestep.models.failures import RETRYABLE_STATUS, TRANSIENT_CODES, is_cut

LOCKED_RETRIES = 3
"""How often a conversation that another request holds is asked for again, after 1, 2 and 4 s, as the SDK does."""


def failure_of(event: Any) -> Exception:
    """Return the error of an event that ends a stream without an answer."""
    response = getattr(event, "response", None)
    error = getattr(response, "error", None)
    detail = error or getattr(response, "incomplete_details", None) or getattr(event, "message", None)
    message = f"The model's stream ended with {event.type}: {detail}"
    if getattr(error or event, "code", None) in TRANSIENT_CODES:
        return IncompleteModelResponseError(message)
    return ModelBehaviorError(message)


def _cut_answer(context: RetryPolicyContext) -> bool:
    return is_cut(context.error)


DEFAULT_RETRY = ModelRetrySettings(
    max_retries=4,
    backoff=ModelRetryBackoffSettings(initial_delay=0.5, max_delay=30.0, multiplier=2.0, jitter=True),
    policy=retry_policies.any(
        retry_policies.provider_suggested(),
        retry_policies.http_status(RETRYABLE_STATUS),
        retry_policies.network_error(),
        _cut_answer,
    ),
)
"""Retries of a durable run: rate limits, server errors, time-outs, lost connections, answers that broke off.

What an agent's `ModelSettings.retry` says takes the place of the same field here.
"""


async def seconds_to_retry(
    error: Exception,
    *,
    attempt: int,
    model: Model,
    own: ModelRetrySettings | None,
    stream: bool,
    was_seen: bool,
    is_unsafe: bool,
    previous_response_id: str | None,
    conversation_id: str | None,
) -> float | None:
    """Return how long to wait before a failed call is made again, None when its error is final.

    Args:
        attempt: How many attempts have failed.
        own: The retry settings of the agent.
        was_seen: Whether a caller has seen a part of the answer, which cannot be taken back.
        is_unsafe: Whether the provider may have called tools of this process before it failed.
    """
    settings = _merged(own)
    is_locked = isinstance(error, openai.BadRequestError) and error.code == "conversation_locked"
    if is_locked and settings.max_retries != 0 and not is_unsafe:
        return 2.0 ** (attempt - 1) if attempt <= LOCKED_RETRIES else None
    advice = model.get_retry_advice(
        ModelRetryAdviceRequest(
            error=error,
            attempt=attempt,
            stream=stream,
            previous_response_id=previous_response_id,
            conversation_id=conversation_id,
        )
    )
    decision = await agents_sdk.evaluate_retry(
        error=error,
        attempt=attempt,
        max_retries=settings.max_retries or 0,
        retry_policy=settings.policy,
        retry_backoff=settings.backoff,
        stream=stream,
        replay_unsafe_request=is_unsafe,
        emitted_retry_unsafe_event=was_seen,
        provider_advice=advice,
        previous_response_id=previous_response_id,
        conversation_id=conversation_id,
    )
    return max(decision.delay or 0.0, 0.0) if decision.retry else None


TOO_MANY_REQUESTS = 429


def seconds_refused(error: Exception, *, attempt: int, model: Model, stream: bool) -> float | None:
    """Return for how long a provider that answered 429 wants no call, None when it does not say."""
    advice = model.get_retry_advice(ModelRetryAdviceRequest(error=error, attempt=attempt, stream=stream))
    facts = agents_sdk.facts_of_error(error, advice)
    return facts.retry_after or None if facts.status_code == TOO_MANY_REQUESTS else None


def _merged(own: ModelRetrySettings | None) -> ModelRetrySettings:
    if own is None:
        return DEFAULT_RETRY
    given = {field.name: getattr(own, field.name) for field in dataclasses.fields(own)}
    return dataclasses.replace(DEFAULT_RETRY, **{name: value for name, value in given.items() if value is not None})
