"""The attempts of one model call: its retries, rate limits, time limits and fallbacks, streamed or not."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from agents import Agent, Model, ModelResponse, ModelRetrySettings, ProgrammaticToolCallingTool, RunConfig
from agents.usage import Usage
from openai.types.responses import Response

from timestep.durable.journal.scope import Scope
from timestep.durable.journal.step_events import StepEvents
from timestep.durable.seams import agents_sdk
from timestep.durable.seams.user_code import contained, contained_stream
from timestep.durable.steps.model_retry import failure_of, seconds_to_retry
from timestep.durable.steps.rate_limits import CallLimits
from timestep.errors import IncompleteModelResponseError
from timestep.models.clients import base_url_of
from timestep.models.model_chain import ARGUMENTS, ModelChain, check_behaviour
from timestep.pricing import price_of
from timestep.words import TEXT_DELTA

log = logging.getLogger("timestep")

ONE_ATTEMPT = ModelRetrySettings(max_retries=0)
"""What the SDK is given: it makes one attempt, and the client of the provider too."""

UNSEEN_EVENTS = ("response.created", "response.in_progress")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCall:
    """What a model is asked, by which agent, in which step.

    `forward` takes the events of a call whose caller reads them, `events` those of the run's stream.
    """

    model: Model
    agent: Agent[Any]
    run_config: RunConfig
    arguments: dict[str, Any]
    scope: Scope
    step: str
    events: StepEvents
    forward: asyncio.Queue[Any] | None

    @property
    def is_streamed(self) -> bool:
        """Whether somebody reads the answer while it comes."""
        return self.forward is not None or self.scope.segment.stream

    @property
    def conversation(self) -> dict[str, Any]:
        """What the provider knows the conversation by."""
        return {name: self.arguments.get(name) for name in ("previous_response_id", "conversation_id")}

    @property
    def is_model_named(self) -> bool:
        """Whether the model was found by its name."""
        given = self.agent.model if self.run_config.model is None else self.run_config.model
        return not isinstance(given, Model)

    @property
    def model_name(self) -> str | None:
        """The name of the model, as the run or its agent gives it."""
        if isinstance(self.run_config.model, str):
            return self.run_config.model
        if isinstance(self.agent.model, str):
            return self.agent.model
        name = getattr(self.model, "model", None)
        return name if isinstance(name, str) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer, and who gave it; `refused` are the answers before it that a fallback took the place of."""

    response: ModelResponse
    retry: int
    asked: Model
    model: str | None
    started_at: float
    ended_at: float
    refused: Sequence[Answer] = ()

    @property
    def provider(self) -> str:
        """The class of the model that answered."""
        return type(self.asked).__name__

    def cost(self) -> dict[str, Any]:
        """Return what the answer cost, for the envelope; nothing when that is not known."""
        return cost_of(self.asked, self.model, self.response.usage, at=self.ended_at)


async def ask_until_answered(call: ModelCall) -> Answer:
    """Return the whole answer of the model, or of the first of its fallbacks that gives one."""
    inner = call.model
    if not isinstance(inner, ModelChain):
        attempts = _ModelAttempts(call=call, model=inner, name=call.model_name, is_named=call.is_model_named)
        return await attempts.answer()
    retry, refused = 0, list[Answer]()
    for number in itertools.count():
        attempts = answer = None
        try:
            candidate = inner.candidate(number)
            is_named = isinstance(inner.models[number], str)
            attempts = _ModelAttempts(
                call=call,
                model=candidate.model,
                name=candidate.name,
                is_named=is_named,
                retry=retry,
                refused=len(refused),
            )
            answer = await attempts.answer()
            if number + 1 < len(inner.models) and not attempts.was_seen:
                check_behaviour(answer.response, call.arguments)
        except Exception as error:
            is_last = number + 1 == len(inner.models)
            if is_last or (attempts is not None and attempts.was_seen) or not inner.falls_back_on(error):
                raise
            inner.tell(number, error)
            retry = retry if attempts is None else attempts.retry + 1
            if answer is not None:
                refused.append(answer)
        else:
            return dataclasses.replace(answer, refused=refused)
    raise AssertionError("unreachable")


@dataclasses.dataclass(kw_only=True)
class _ModelAttempts:
    """The attempts at one model. `retry` counts those before, of any model of the call, `refused` those that answered.

    `is_named`: the provider was found by the name. `was_seen`: the caller has seen a part of the last attempt.
    """

    call: ModelCall
    model: Model
    name: str | None
    is_named: bool
    retry: int = 0
    refused: int = 0
    was_seen: bool = False

    async def answer(self) -> Answer:
        """Return the whole answer of the model, with the number of attempts that failed before it, of any model.

        Each attempt first waits for the rate limits of the model; its time limit does not count that. Each streamed one
        writes its text under its own number, so that the last one replaces those before.
        """
        call = self.call
        settings = call.scope.settings or agents_sdk.get_model_settings(call.agent, call.run_config)
        limits = CallLimits.of(
            self.model,
            self.name,
            is_named=self.is_named,
            segment=call.scope.segment,
            agent=call.agent.name,
            arguments=call.arguments,
        )
        for number in itertools.count(1):
            await limits.take(call.events, retry=self.retry)
            started_at = time.time()
            self.was_seen = False
            try:
                response = await (self._stream if call.is_streamed else self._ask)(timeout=settings.timeout)
            except Exception as error:
                paused = await limits.heed(error, attempt=number, stream=call.is_streamed)
                seconds = await seconds_to_retry(
                    error,
                    attempt=number,
                    model=self.model,
                    own=settings.retry,
                    stream=call.is_streamed,
                    was_seen=self.was_seen,
                    is_unsafe=any(isinstance(tool, ProgrammaticToolCallingTool) for tool in call.arguments["tools"]),
                    **call.conversation,
                )
                if seconds is None:
                    raise
                where = f"Run {call.scope.segment.run_id}, {call.step}"
                log.info("%s: %s, the next attempt follows in %.1f s.", where, type(error).__name__, seconds)
            else:
                await limits.settle(response.usage)
                response.usage = agents_sdk.add_failed_attempts(response.usage, self.retry - self.refused)
                return Answer(
                    response=response,
                    retry=self.retry,
                    asked=self.model,
                    model=self.name,
                    started_at=started_at,
                    ended_at=time.time(),
                )
            await asyncio.sleep(max(0.0, seconds - paused))
            self.retry += 1
        raise AssertionError("unreachable")

    async def _ask(self, *, timeout: float | None) -> ModelResponse:
        return await agents_sdk.get_response_with_retry(
            get_response=lambda: contained(lambda: self.model.get_response(**self.call.arguments)),
            **self._attempt(timeout),
        )

    async def _stream(self, *, timeout: float | None) -> ModelResponse:
        """Stream one attempt, and note what its caller has seen of it, also when it fails."""
        call, arguments = self.call, dict(self.call.arguments)
        positional = [arguments.pop(name) for name in ARGUMENTS]
        final: Response | None = None
        output: list[Any] = []
        stream = agents_sdk.stream_response_with_retry(
            get_stream=lambda: contained_stream(lambda: self.model.stream_response(*positional, **arguments)),
            **self._attempt(timeout),
        )
        async with aclosing(stream) as events:
            async for event in events:
                if event.type in ("response.incomplete", "response.failed", "error"):
                    raise failure_of(event)
                if event.type == "response.completed":
                    final = event.response
                elif call.forward is not None:
                    call.forward.put_nowait(event)
                    self.was_seen = self.was_seen or event.type not in UNSEEN_EVENTS
                if event.type == "response.output_text.delta":
                    text = {"type": TEXT_DELTA, "text": event.delta, "agent": call.agent.name}
                    call.events.add(text, retry=self.retry)
                elif event.type == "response.output_item.done":
                    output.append(event.item)
        if final is None:
            raise IncompleteModelResponseError(
                f"The stream of {self.name or 'the model'} ended without a final response."
            )
        usage = agents_sdk.usage_of_response(final.usage) if final.usage else Usage(requests=1)
        return ModelResponse(output=final.output or output, usage=usage, response_id=final.id)

    def _attempt(self, timeout: float | None) -> dict[str, Any]:
        async def rewind() -> None:
            return None

        return {
            "rewind": rewind,
            "retry_settings": ONE_ATTEMPT,
            "get_retry_advice": self.model.get_retry_advice,
            "timeout": timeout,
            **self.call.conversation,
        }


def cost_of(model: Model, named: str | None, usage: Usage, *, at: float) -> dict[str, Any]:
    """Return the cost of a call of a model, `named` by its agent, for the envelope; nothing when it is not known."""
    name, cached = getattr(model, "model", None), usage.input_tokens_details
    price = price_of(
        name if isinstance(name, str) else named,
        input_tokens=usage.input_tokens,
        cached_tokens=cached.cached_tokens or 0,
        cache_write_tokens=getattr(cached, "cache_write_tokens", 0) or 0,
        output_tokens=usage.output_tokens,
        base_url=base_url_of(model),
        at=datetime.fromtimestamp(at, UTC),
    )
    if price is None:
        return {}
    priced_at = price.priced_at.isoformat() if price.priced_at is not None else None
    return {"cost_micro_usd": price.cost_micro_usd, "price_source": price.source, "priced_at": priced_at}
