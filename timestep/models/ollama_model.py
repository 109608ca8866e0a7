"""A model of Ollama, with everything that an agent asks of one, streamed and not."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from agents import (
    AgentOutputSchemaBase,
    Handoff,
    Model,
    ModelBehaviorError,
    ModelResponse,
    ModelSettings,
    ModelTracing,
    Tool,
    generation_span,
)
from agents.items import TResponseInputItem, TResponseStreamEvent
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest, ModelRetryNormalizedError
from agents.usage import Usage
from openai.types.responses.response_prompt_param import ResponsePromptParam

from timestep.errors import (
    IncompleteModelResponseError,
    ModelProviderError,
    ModelServerUnreachableError,
)
from timestep.models import ollama_call
from timestep.models.from_ollama import items_of, new_id, usage_of
from timestep.models.ollama_body import Body, body_of
from timestep.models.ollama_stream import StreamedAnswer, events_of

log = logging.getLogger("timestep")

Json = Any

_told: set[tuple[str, str]] = set()


class OllamaModel(Model):
    """A model behind Ollama's own interface.

    Args:
        model: Its name at the server, such as `gpt-oss:20b`.
        ollama_client: An `ollama.AsyncClient`; the key of the environment is kept from other hosts than Ollama's.
    """

    def __init__(self, model: str, ollama_client: Any) -> None:
        self.model = model
        self._client = ollama_client
        self._is_client_given = True

    @classmethod
    def of_provider(cls, model: str, client: Any) -> OllamaModel:
        """Return a model whose client has the headers that a provider decided on."""
        found = cls(model, client)
        found._is_client_given = False
        return found

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Say whether a failed call may be made again, and when the server asks for it."""
        error = request.error
        if not isinstance(error, (ModelProviderError, IncompleteModelResponseError)):
            return None
        retry_after = getattr(error, "retry_after_seconds", None)
        return ModelRetryAdvice(
            suggested=error.retryable,
            retry_after=retry_after,
            reason=str(error),
            normalized=ModelRetryNormalizedError(
                status_code=getattr(error, "status_code", None),
                message=str(error),
                retry_after=retry_after,
                is_network_error=isinstance(error, (ModelServerUnreachableError, IncompleteModelResponseError)),
            ),
        )

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: ResponsePromptParam | None = None,
    ) -> ModelResponse:
        """Return the model's answer.

        Raises:
            ModelProviderError: the server refused, or cannot be reached.
            IncompleteModelResponseError: the answer broke off.
            ModelBehaviorError: the answer has no word, or not the tool call that was asked for.
            UserError: a hosted tool, or a tool choice that Ollama has no way to take.
        """
        body = self._body(system_instructions, input, model_settings, tools, output_schema, handoffs)
        self._tell(body, previous_response_id=previous_response_id, conversation_id=conversation_id, prompt=prompt)
        with self._span(model_settings, tracing) as span:
            answer, usage = await self._ask(body, _options(model_settings))
            _note(span.span_data, tracing, body=body, answer=answer, usage=usage)
            return ModelResponse(
                output=items_of(answer, model=self.model),
                usage=usage,
                response_id=None,
                raw_usage=_raw_usage(answer) if model_settings.preserve_raw_usage else None,
            )

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: ResponsePromptParam | None = None,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Yield the events of the model's answer as they arrive; raises as `get_response` does.

        While tools may be called, a structured output or a call that has to come arrives whole: what is streamed
        cannot be taken back when it turns out to be something else.
        """
        body = self._body(system_instructions, input, model_settings, tools, output_schema, handoffs)
        self._tell(body, previous_response_id=previous_response_id, conversation_id=conversation_id, prompt=prompt)
        self._tell(body, **{"preserve_raw_usage of a stream": model_settings.preserve_raw_usage or None})
        options = _options(model_settings)
        with self._span(model_settings, tracing) as span:
            if body.must_call or body.schema is not None:
                answer, usage = await self._ask(body, options)
                _note(span.span_data, tracing, body=body, answer=answer, usage=usage)
                for event in events_of(answer, usage, model=self.model):
                    yield event
                return
            streamed = StreamedAnswer(model=self.model, new_id=new_id)
            chunks = ollama_call.stream(self._client, body.fields, is_given=self._is_client_given, **options)
            async with aclosing(chunks):
                async for chunk in chunks:
                    for event in (*(() if streamed.last else streamed.begin()), *streamed.take(chunk)):
                        yield event
                    if streamed.is_done:
                        break
            if not streamed.is_done:
                raise IncompleteModelResponseError(f"The stream of {self.model!r} ended before its answer did.")
            usage = usage_of(streamed.whole)
            _note(span.span_data, tracing, body=body, answer=streamed.whole, usage=usage)
            for event in streamed.end(usage):
                yield event

    def _body(self, *given: Any) -> Body:
        system_instructions, items, settings, tools, output_schema, handoffs = given
        return body_of(
            self.model,
            system_instructions=system_instructions,
            items=items,
            settings=settings,
            tools=tools,
            handoffs=handoffs,
            output_schema=output_schema,
        )

    async def _ask(self, body: Body, options: Mapping[str, Any]) -> tuple[dict[str, Json], Usage]:
        """Return the answer and what it used; an output that does not fit its schema is asked for once more."""
        answer = await ollama_call.ask(self._client, body.fields, is_given=self._is_client_given, **options)
        calls = (answer.get("message") or {}).get("tool_calls") or []
        if body.must_call and not any(call.get("function", {}).get("name") in body.must_call for call in calls):
            names = ", ".join(sorted(body.must_call))
            raise ModelBehaviorError(f"The model {self.model!r} was told to call a tool ({names}) and did not.")
        if body.schema is None or calls or _fits(answer, body.schema):
            return answer, usage_of(answer)
        again = await ollama_call.ask(self._client, body.with_format(), is_given=self._is_client_given, **options)
        return again, usage_of(answer, again)

    def _tell(self, body: Body, **unsupported: Any) -> None:
        """Warn, once a model, of what Ollama has no way to honour."""
        for what in [*body.ignored, *(name for name, value in unsupported.items() if value is not None)]:
            if (self.model, what) not in _told:
                _told.add((self.model, what))
                log.warning("Ollama has no way to honour %s; %s is called without it.", what, self.model)

    def _span(self, settings: ModelSettings, tracing: ModelTracing) -> Any:
        config = settings.to_traceable_dict() | {"provider": "ollama"}
        return generation_span(model=self.model, model_config=config, disabled=tracing.is_disabled())


def _options(settings: ModelSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings.extra_headers:
        found["headers"] = {name: value for name, value in settings.extra_headers.items() if isinstance(value, str)}
    if settings.extra_query:
        found["params"] = settings.extra_query
    return found


def _fits(answer: Mapping[str, Json], schema: AgentOutputSchemaBase) -> bool:
    try:
        schema.validate_json(str((answer.get("message") or {}).get("content") or ""))
    except (ModelBehaviorError, ValueError):
        return False
    return True


def _raw_usage(answer: Mapping[str, Json]) -> dict[str, Json]:
    return {name: answer.get(name) for name in ("prompt_eval_count", "eval_count", "total_duration") if name in answer}


def _note(data: Any, tracing: ModelTracing, *, body: Body, answer: Mapping[str, Json], usage: Usage) -> None:
    """Put a call onto its span."""
    data.usage = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if tracing.include_data():
        data.input = json.loads(json.dumps(body.fields["messages"], default=str))
        data.output = [answer.get("message")]
