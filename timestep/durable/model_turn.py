"""The step `model_turn`: one model call with its retries, streamed or not.

The recorded result is the model's whole answer. Retries, `Retry-After` and time limits are inside the step.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import openai
from agents import (
    Agent,
    Model,
    ModelBehaviorError,
    ModelResponse,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
)
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest, ModelRetryBackoffSettings, retry_policies
from agents.usage import Usage
from openai.types.responses import Response, ResponseCompletedEvent
from pydantic import TypeAdapter

from timestep.durable import agents_seam
from timestep.durable.events import TextBatch, emit
from timestep.durable.scope import Scope, active_scope, agent_name, is_durable
from timestep.durable.step import Envelope, run_step, value_of
from timestep.errors import IncompleteModelResponseError

RESPONSE: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)
RETRYABLE_STATUS = (408, 409, 429, 500, 502, 503, 504, 529)
CUT_STREAM_RETRIES = 2
"""How often a stream that was cut after its first words is asked for again."""

DEFAULT_RETRY = ModelRetrySettings(
    max_retries=4,
    backoff=ModelRetryBackoffSettings(initial_delay=0.5, max_delay=30.0, multiplier=2.0, jitter=True),
    policy=retry_policies.any(
        retry_policies.provider_suggested(),
        retry_policies.http_status(RETRYABLE_STATUS),
        retry_policies.network_error(),
    ),
)
"""Retries of a durable run whose agent sets none: rate limits, server errors, time-outs, lost connections."""


def get_model(agent: Agent[Any], run_config: RunConfig) -> Model:
    """Return the agent's model; inside a durable run one whose calls are steps."""
    model = agents_seam.get_model(agent, run_config)
    return DurableModel(model, agent, run_config) if active_scope() is not None else model


def get_model_settings(agent: Agent[Any], run_config: RunConfig) -> ModelSettings:
    """Return the model settings; inside a durable run without retries and time limit, which are in the step."""
    settings = agents_seam.get_model_settings(agent, run_config)
    return dataclasses.replace(settings, retry=None, timeout=None) if active_scope() is not None else settings


async def handle_chat_stream(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
    """Read a Chat Completions stream; one that ends without a finish reason is an error, whoever serves it."""
    if is_durable():
        named["require_finish_reason"] = True
    stream: Any = agents_seam.handle_chat_stream(*arguments, **named)
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
        names = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")
        arguments = dict(zip(names, args, strict=False)) | kwargs
        return cls(
            model=model, scope=scope, name=scope.step_name("model_turn", agent_name(model.agent)), arguments=arguments
        )

    async def run(self, forward: asyncio.Queue[Any] | None = None) -> Envelope:
        """Run the step. A repeat is harmless when it was recorded; else the model is asked again."""

        async def body() -> Envelope:
            started = time.time()
            response = await (self._stream(forward) if forward or self.scope.segment.stream else self._ask())
            usage = response.usage
            seconds = round(time.time() - started, 3)
            await emit(
                self.scope,
                {
                    "type": "turn_finished",
                    "agent": self.model.agent.name,
                    "seconds": seconds,
                    "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
                },
            )
            # exclude_unset: without it the answer gains nulls and is not equal after the round trip
            return {
                "ok": RESPONSE.dump_python(response, mode="json", exclude_unset=True),
                "model": _model_name(self.model),
                "provider": type(self.model.inner).__name__,
                "started_at": started,
                "seconds": seconds,
            }

        return await run_step(self.scope.reserve(), self.name, body, max_bytes=self.scope.segment.max_result_bytes)

    def accept(self, recorded: Envelope) -> ModelResponse:
        """Return the recorded answer and draw the step ids of its calls."""
        response = RESPONSE.validate_python(value_of(recorded))
        self.scope.segment.record.model_turns.append(
            {"step": self.name, "agent": self.model.agent.name, "envelope": recorded, "usage": response.usage}
        )
        self.scope.plan(response.output, self.arguments.get("tools") or [])
        return response

    def _retry(self) -> dict[str, Any]:
        settings = agents_seam.get_model_settings(self.model.agent, self.model.run_config)

        async def rewind() -> None:
            return None

        return {
            "rewind": rewind,
            "retry_settings": settings.retry or DEFAULT_RETRY,
            "get_retry_advice": self.model.inner.get_retry_advice,
            "previous_response_id": self.arguments.get("previous_response_id"),
            "conversation_id": self.arguments.get("conversation_id"),
            "timeout": settings.timeout,
        }

    async def _ask(self) -> ModelResponse:
        inner = self.model.inner
        return await agents_seam.get_response_with_retry(
            get_response=lambda: inner.get_response(**self.arguments), **self._retry()
        )

    async def _stream(self, forward: asyncio.Queue[Any] | None) -> ModelResponse:
        for retry in range(CUT_STREAM_RETRIES + 1):
            try:
                return await self._stream_once(forward, retry)
            except Exception as error:
                if retry == CUT_STREAM_RETRIES or forward is not None or not _is_cut(error):
                    raise
                await asyncio.sleep(2**retry * random.uniform(0.25, 0.5))
        raise AssertionError("unreachable")

    async def _stream_once(self, forward: asyncio.Queue[Any] | None, retry: int) -> ModelResponse:
        inner, arguments = self.model.inner, dict(self.arguments)
        positional = [arguments.pop(name) for name in list(arguments)[:7]]
        final: Response | None = None
        output: list[Any] = []
        text = TextBatch(self.scope, self.model.agent.name, retry)
        stream = agents_seam.stream_response_with_retry(
            get_stream=lambda: inner.stream_response(*positional, **arguments), **self._retry()
        )
        async with aclosing(stream) as events:
            async for event in events:
                if event.type == "response.completed":
                    final = event.response
                elif forward is not None:
                    forward.put_nowait(event)
                if event.type == "response.output_text.delta":
                    await text.add(event.delta)
                elif event.type == "response.output_item.done":
                    output.append(event.item)
                elif event.type in ("response.incomplete", "response.failed", "error"):
                    raise _failure(event)
        await text.flush()
        if final is None:
            raise IncompleteModelResponseError(
                f"The stream of {_model_name(self.model) or 'the model'} ended without a final response."
            )
        usage = agents_seam.usage_of_response(final.usage) if final.usage else Usage(requests=1)
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


def _response_usage(usage: Usage) -> Any:
    from openai.types.responses.response_usage import ResponseUsage

    return ResponseUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=usage.input_tokens_details,
        output_tokens_details=usage.output_tokens_details,
    )


def _failure(event: Any) -> Exception:
    response = getattr(event, "response", None)
    detail = getattr(response, "error", None) or getattr(response, "incomplete_details", None)
    detail = detail or getattr(event, "message", None)
    return ModelBehaviorError(f"The model's stream ended with {event.type}: {detail}")


def _is_cut(error: Exception) -> bool:
    """Whether an error says that the connection broke in mid-answer, as opposed to a refusal."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in RETRYABLE_STATUS
    cut = (openai.APIConnectionError, IncompleteModelResponseError, json.JSONDecodeError, ConnectionError, TimeoutError)
    if isinstance(error, cut) or type(error).__name__ in ("RemoteProtocolError", "ReadError", "ReadTimeout"):
        return True
    return isinstance(error, ModelBehaviorError) and "before receiving a finish_reason" in str(error)


def _model_name(model: DurableModel) -> str | None:
    if isinstance(model.run_config.model, str):
        return model.run_config.model
    if isinstance(model.agent.model, str):
        return model.agent.model
    name = getattr(model.inner, "model", None)
    return name if isinstance(name, str) else None
