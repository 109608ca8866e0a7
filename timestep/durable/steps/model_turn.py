"""The step `model_turn`: one model call with its retries, streamed or not.

The recorded result is the model's whole answer. Retries, `Retry-After` and time limits are inside the step.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from agents import (
    Agent,
    Model,
    ModelResponse,
    ModelRetrySettings,
    ModelSettings,
    ProgrammaticToolCallingTool,
    RunConfig,
)
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from agents.usage import Usage
from openai.types.responses import Response, ResponseCompletedEvent
from openai.types.responses.response_usage import ResponseUsage
from pydantic import TypeAdapter

from timestep.durable.journal.scope import Scope, active_scope, agent_name, is_durable
from timestep.durable.journal.step import Envelope, run_step, value_of
from timestep.durable.journal.step_events import StepEvents
from timestep.durable.seams import agents_sdk
from timestep.durable.steps.limits import check_limits
from timestep.durable.steps.model_retry import failure_of, seconds_to_retry
from timestep.durable.steps.rate_limits import CallLimits
from timestep.errors import IncompleteModelResponseError
from timestep.models.fallback import ARGUMENTS, FallbackModel, check_behaviour
from timestep.pricing import price_of

log = logging.getLogger("timestep")

RESPONSE: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)
USAGE: TypeAdapter[Usage] = TypeAdapter(Usage)
ONE_ATTEMPT = ModelRetrySettings(max_retries=0)
"""What the SDK is told: it makes one attempt, and the client of the provider too."""

UNSEEN_EVENTS = ("response.created", "response.in_progress")


def get_model(agent: Agent[Any], run_config: RunConfig) -> Model:
    """Return the agent's model; inside a durable run one whose calls are steps."""
    model = agents_sdk.get_model(agent, run_config)
    return DurableModel(model, agent, run_config) if active_scope() is not None else model


def get_model_settings(agent: Agent[Any], run_config: RunConfig) -> ModelSettings:
    """Return the model settings; inside a durable run without retries and time limit, which are in the step."""
    settings = agents_sdk.get_model_settings(agent, run_config)
    if (scope := active_scope()) is not None:
        scope.settings = settings
    if scope is None or (settings.retry is None and settings.timeout is None):
        return settings
    return dataclasses.replace(settings, retry=None, timeout=None)


async def handle_chat_stream(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
    """Read a Chat Completions stream; one that ends without a finish reason is an error, whoever serves it."""
    if is_durable():
        named["require_finish_reason"] = True
    stream: Any = agents_sdk.handle_chat_stream(*arguments, **named)
    async with aclosing(stream) as events:
        async for event in events:
            yield event


class DurableModel(Model):
    """A model whose calls are steps of the workflow."""

    def __init__(self, inner: Model, agent: Agent[Any], run_config: RunConfig) -> None:
        self.inner, self.agent, self.run_config = inner, agent, run_config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        return None  # the retries are over when the error leaves the step

    async def close(self) -> None:
        await self.inner.close()

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Call the model as the step `model_turn`, or return its recorded answer."""
        call = _Call.of(self, args, kwargs)
        recorded = await call.run()
        return call.accept(recorded)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Stream the model's events; a replay yields the final one alone, which is all that the Runner needs."""
        call = _Call.of(self, args, kwargs)
        if call.scope.is_quiet:
            yield _completed(call.accept(await call.run()))
            return
        events: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.ensure_future(call.run(forward=events))
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            response = call.accept(await task)
            yield _completed(response)
        finally:
            if not task.done():
                task.cancel()


@dataclasses.dataclass(kw_only=True)
class _Attempts:
    """The attempts at one model. `retry` counts those before, of any model of the call, `refused` those that answered.

    `is_named`: the provider was found by the name.
    """

    model: Model
    name: str | None
    is_named: bool
    retry: int = 0
    refused: int = 0
    was_seen: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """A whole answer, and who gave it; `refused` are the answers before it that a fallback took the place of."""

    response: ModelResponse
    retry: int
    asked: Model
    model: str | None
    started_at: float
    ended_at: float
    refused: Sequence[_Answer] = ()

    @property
    def provider(self) -> str:
        """The class of the model that answered."""
        return type(self.asked).__name__

    def cost(self) -> dict[str, Any]:
        """Return what the answer cost, for the envelope; nothing when that is not known."""
        return _price(self.asked, self.model, self.response.usage, at=self.ended_at)

    def as_refused(self) -> dict[str, Any]:
        """Return the entry in the envelope of an answer that was paid for and not taken."""
        return {
            "model": self.model,
            "provider": self.provider,
            "started_at": self.started_at,
            "seconds": round(self.ended_at - self.started_at, 3),
            "usage": USAGE.dump_python(self.response.usage, mode="json"),
        } | self.cost()


@dataclasses.dataclass(kw_only=True)
class _Call:
    """One model call: what it was asked, and where it belongs."""

    model: DurableModel
    scope: Scope
    name: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, model: DurableModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        scope = active_scope()
        assert scope is not None
        scope.turn += 1
        arguments = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
        return cls(
            model=model, scope=scope, name=scope.step_name("model_turn", agent_name(model.agent)), arguments=arguments
        )

    async def run(self, forward: asyncio.Queue[Any] | None = None) -> Envelope:
        """Run the step. A repeat is harmless when it was recorded; else the model is asked again."""

        async def body() -> Envelope:
            started = time.time()
            used = check_limits(self.scope, agent=self.model.agent.name)
            async with StepEvents(self.scope, self.name) as events:
                answer = await self._ask_until_answered(forward, events)
                response, usage = answer.response, answer.response.usage
                seconds = round(time.time() - started, 3)
                events.add(
                    {
                        "type": "turn_finished",
                        "agent": self.model.agent.name,
                        "model": answer.model,
                        "seconds": seconds,
                        "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
                    },
                    retry=answer.retry,
                )
            # exclude_unset: without it the answer gains nulls and is not equal after the round trip
            envelope = {
                "ok": RESPONSE.dump_python(response, mode="json", exclude_unset=True),
                "model": answer.model,
                "provider": answer.provider,
                "started_at": started,
                "seconds": seconds,
                "attempt": self.scope.segment.attempt,
            } | answer.cost()
            if answer.refused:
                envelope["refused"] = [each.as_refused() for each in answer.refused]
            return envelope if used is None else envelope | {"used": used}

        return await run_step(self.scope.segment, self.scope.reserve(), self.name, body)

    def accept(self, recorded: Envelope) -> ModelResponse:
        """Return the recorded answer and draw the step ids of its calls."""
        response = RESPONSE.validate_python(value_of(recorded))
        record, agent = self.scope.segment.record, self.model.agent.name
        record.model_turns.append({"step": self.name, "agent": agent, "envelope": recorded, "usage": response.usage})
        for number, refused in enumerate(recorded.get("refused", ()), 1):
            usage = USAGE.validate_python(refused["usage"])
            step = f"{self.name}:refused:{number}"
            record.refused_turns.append({"step": step, "agent": agent, "envelope": refused, "usage": usage})
        self.scope.plan(response.output, self.arguments.get("tools") or [])
        return response

    async def _ask_until_answered(self, forward: asyncio.Queue[Any] | None, told: StepEvents) -> _Answer:
        """Return the whole answer of the model, or of the first of its fallbacks that gives one."""
        inner = self.model.inner
        if not isinstance(inner, FallbackModel):
            attempts = _Attempts(model=inner, name=_model_name(self.model), is_named=_is_named(self.model))
            return await self._ask_one(attempts, forward, told)
        retry, refused = 0, list[_Answer]()
        for number in itertools.count():
            attempts = answer = None
            try:
                candidate = inner.candidate(number)
                is_named = isinstance(inner.models[number], str)
                attempts = _Attempts(
                    model=candidate.model, name=candidate.name, is_named=is_named, retry=retry, refused=len(refused)
                )
                answer = await self._ask_one(attempts, forward, told)
                if number + 1 < len(inner.models) and not attempts.was_seen:
                    check_behaviour(answer.response, self.arguments)
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

    async def _ask_one(self, attempts: _Attempts, forward: asyncio.Queue[Any] | None, told: StepEvents) -> _Answer:
        """Return the whole answer of one model, with the number of attempts that failed before it, of any model.

        Each attempt first waits for the rate limits of the model; its time limit does not count that. Each streamed one
        writes its text under its own number, so that the last one replaces those before.
        """
        settings = self.scope.settings or agents_sdk.get_model_settings(self.model.agent, self.model.run_config)
        is_streamed = forward is not None or self.scope.segment.stream
        limits = CallLimits.of(
            attempts.model,
            attempts.name,
            is_named=attempts.is_named,
            segment=self.scope.segment,
            agent=self.model.agent.name,
            arguments=self.arguments,
        )
        for number in itertools.count(1):
            seen: list[str] = []
            await limits.take(told, retry=attempts.retry)
            started_at = time.time()
            try:
                if is_streamed:
                    response = await self._stream(attempts, forward, told, seen, timeout=settings.timeout)
                else:
                    response = await self._ask(attempts, timeout=settings.timeout)
            except Exception as error:
                attempts.was_seen = bool(seen)
                paused = await limits.heed(error, attempt=number, stream=is_streamed)
                seconds = await seconds_to_retry(
                    error,
                    attempt=number,
                    model=attempts.model,
                    own=settings.retry,
                    stream=is_streamed,
                    was_seen=attempts.was_seen,
                    is_unsafe=any(isinstance(tool, ProgrammaticToolCallingTool) for tool in self.arguments["tools"]),
                    **self._conversation(),
                )
                if seconds is None:
                    raise
                where = f"Run {self.scope.segment.run_id}, {self.name}"
                log.info("%s: %s, the next attempt follows in %.1f s.", where, type(error).__name__, seconds)
            else:
                attempts.was_seen = bool(seen)
                await limits.settle(response.usage)
                response.usage = agents_sdk.add_failed_attempts(response.usage, attempts.retry - attempts.refused)
                return _Answer(
                    response=response,
                    retry=attempts.retry,
                    asked=attempts.model,
                    model=attempts.name,
                    started_at=started_at,
                    ended_at=time.time(),
                )
            await asyncio.sleep(max(0.0, seconds - paused))
            attempts.retry += 1
        raise AssertionError("unreachable")

    def _conversation(self) -> dict[str, Any]:
        return {name: self.arguments.get(name) for name in ("previous_response_id", "conversation_id")}

    def _attempt(self, model: Model, *, timeout: float | None) -> dict[str, Any]:
        async def rewind() -> None:
            return None

        return {
            "rewind": rewind,
            "retry_settings": ONE_ATTEMPT,
            "get_retry_advice": model.get_retry_advice,
            "timeout": timeout,
            **self._conversation(),
        }

    async def _ask(self, attempts: _Attempts, *, timeout: float | None) -> ModelResponse:
        model = attempts.model
        return await agents_sdk.get_response_with_retry(
            get_response=lambda: model.get_response(**self.arguments), **self._attempt(model, timeout=timeout)
        )

    async def _stream(
        self,
        attempts: _Attempts,
        forward: asyncio.Queue[Any] | None,
        told: StepEvents,
        seen: list[str],
        *,
        timeout: float | None,
    ) -> ModelResponse:
        """Stream one attempt. What its caller has seen of it is told through `seen`, also when it fails."""
        model, arguments = attempts.model, dict(self.arguments)
        positional = [arguments.pop(name) for name in ARGUMENTS]
        final: Response | None = None
        output: list[Any] = []
        stream = agents_sdk.stream_response_with_retry(
            get_stream=lambda: model.stream_response(*positional, **arguments), **self._attempt(model, timeout=timeout)
        )
        async with aclosing(stream) as events:
            async for event in events:
                if event.type in ("response.incomplete", "response.failed", "error"):
                    raise failure_of(event)
                if event.type == "response.completed":
                    final = event.response
                elif forward is not None:
                    forward.put_nowait(event)
                    if event.type not in UNSEEN_EVENTS:
                        seen.append(event.type)
                if event.type == "response.output_text.delta":
                    told.add(
                        {"type": "text_delta", "text": event.delta, "agent": self.model.agent.name},
                        retry=attempts.retry,
                    )
                elif event.type == "response.output_item.done":
                    output.append(event.item)
        if final is None:
            raise IncompleteModelResponseError(
                f"The stream of {attempts.name or 'the model'} ended without a final response."
            )
        usage = agents_sdk.usage_of_response(final.usage) if final.usage else Usage(requests=1)
        return ModelResponse(output=final.output or output, usage=usage, response_id=final.id)


def _completed(response: ModelResponse) -> ResponseCompletedEvent:
    usage = response.usage
    final = Response.model_construct(
        id=response.response_id or "",
        created_at=0,
        model="",
        object="response",
        output=response.output,
        tool_choice="auto",
        tools=[],
        parallel_tool_calls=True,
        usage=_response_usage(usage),
    )
    return ResponseCompletedEvent.model_construct(type="response.completed", response=final, sequence_number=0)


def _response_usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=usage.input_tokens_details,
        output_tokens_details=usage.output_tokens_details,
    )


def _price(model: Model, named: str | None, usage: Usage, *, at: float) -> dict[str, Any]:
    """Return the cost of a call of a model, `named` by its agent, for the envelope; nothing when it is not known."""
    name, cached = getattr(model, "model", None), usage.input_tokens_details
    price = price_of(
        name if isinstance(name, str) else named,
        input_tokens=usage.input_tokens,
        cached_tokens=cached.cached_tokens or 0,
        cache_write_tokens=getattr(cached, "cache_write_tokens", 0) or 0,
        output_tokens=usage.output_tokens,
        base_url=agents_sdk.base_url_of(model),
        at=datetime.fromtimestamp(at, UTC),
    )
    if price is None:
        return {}
    priced_at = price.priced_at.isoformat() if price.priced_at is not None else None
    return {"cost_micro_usd": price.cost_micro_usd, "price_source": price.source, "priced_at": priced_at}


def _is_named(model: DurableModel) -> bool:
    given = model.agent.model if model.run_config.model is None else model.run_config.model
    return not isinstance(given, Model)


def _model_name(model: DurableModel) -> str | None:
    if isinstance(model.run_config.model, str):
        return model.run_config.model
    if isinstance(model.agent.model, str):
        return model.agent.model
    name = getattr(model.inner, "model", None)
    return name if isinstance(name, str) else None
