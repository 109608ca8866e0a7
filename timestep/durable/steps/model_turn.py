"""The step `model_turn`: one model call with its retries, streamed or not.

The recorded result is the model's whole answer. `model_attempts.py` has what happens inside the step.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from agents import Agent, Model, ModelResponse, ModelSettings, RunConfig
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
from timestep.durable.steps.model_attempts import Answer, ModelCall, ask_until_answered
from timestep.models.model_chain import ARGUMENTS
from timestep.words import MODEL_TURN, REFUSED, TURN_FINISHED

RESPONSE: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)
USAGE: TypeAdapter[Usage] = TypeAdapter(Usage)


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
        call = _ModelTurn.of(self, args, kwargs)
        recorded = await call.run()
        return call.accept(recorded)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Stream the model's events; a replay yields the final one alone, which is all that the Runner needs."""
        call = _ModelTurn.of(self, args, kwargs)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ModelTurn:
    """One model call as a step: what is asked, and where it belongs."""

    model: DurableModel
    scope: Scope
    name: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, model: DurableModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _ModelTurn:
        """Begin the next turn of the active scope."""
        scope = active_scope()
        assert scope is not None
        scope.turn += 1
        scope.is_turn_live = False
        arguments = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
        return cls(
            model=model, scope=scope, name=scope.step_name(MODEL_TURN, agent_name(model.agent)), arguments=arguments
        )

    async def run(self, forward: asyncio.Queue[Any] | None = None) -> Envelope:
        """Run the step. A repeat is harmless when it was recorded; else the model is asked again."""

        async def body() -> Envelope:
            started = time.time()
            self.scope.is_turn_live = True
            used = check_limits(self.scope, agent=self.model.agent.name)
            async with StepEvents(self.scope, self.name) as events:
                answer = await ask_until_answered(self._call(events, forward))
                response, usage = answer.response, answer.response.usage
                seconds = round(time.time() - started, 3)
                events.add(
                    {
                        "type": TURN_FINISHED,
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
                envelope["refused"] = [_refused(each) for each in answer.refused]
            return envelope if used is None else envelope | {"used": used}

        return await run_step(self.scope.segment, self.scope.reserve(), self.name, body)

    def accept(self, recorded: Envelope) -> ModelResponse:
        """Return the recorded answer and draw the step ids of its calls."""
        response = RESPONSE.validate_python(value_of(recorded))
        record, agent = self.scope.segment.record, self.model.agent.name
        record.model_turns.append({"step": self.name, "agent": agent, "envelope": recorded, "usage": response.usage})
        for number, refused in enumerate(recorded.get("refused", ()), 1):
            usage = USAGE.validate_python(refused["usage"])
            step = f"{self.name}{REFUSED}{number}"
            record.refused_turns.append({"step": step, "agent": agent, "envelope": refused, "usage": usage})
        self.scope.plan(response.output, self.arguments.get("tools") or [])
        return response

    def _call(self, events: StepEvents, forward: asyncio.Queue[Any] | None) -> ModelCall:
        return ModelCall(
            model=self.model.inner,
            agent=self.model.agent,
            run_config=self.model.run_config,
            arguments=self.arguments,
            scope=self.scope,
            step=self.name,
            events=events,
            forward=forward,
        )


def _refused(answer: Answer) -> dict[str, Any]:
    """Return the entry in the envelope of an answer that was paid for and not taken."""
    return {
        "model": answer.model,
        "provider": answer.provider,
        "started_at": answer.started_at,
        "seconds": round(answer.ended_at - answer.started_at, 3),
        "usage": USAGE.dump_python(answer.response.usage, mode="json"),
    } | answer.cost()


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


REPLACES = (get_model, get_model_settings, handle_chat_stream)
