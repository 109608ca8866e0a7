"""Models of which the next is tried when one fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents import AgentOutputSchemaBase, Handoff, Model, ModelBehaviorError, ModelResponse, Tool
from agents.items import TResponseStreamEvent
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from timestep.errors import ModelNotConfiguredError
from timestep.models.failures import is_retryable

log = logging.getLogger("timestep")

SEPARATOR = "|"
ARGUMENTS = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")
"""What a model is called with, in the order of its parameters."""

_UNSEEN_EVENTS = ("response.created", "response.in_progress")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of the models, and the name by which it is known."""

    name: str | None
    model: Model


class ModelChain(Model):
    """Models in the order in which they are tried; `find` gives the model of a name.

    `FallbackModel` says when one has failed.

    Raises:
        ModelNotConfiguredError: a name is empty, or there are fewer than two. It is a ValueError too.
    """

    def __init__(
        self, *models: str | Model, on: Sequence[type[Exception]] | None = None, find: Callable[[str], Model]
    ) -> None:
        if len(models) < 2 or not all(models):
            raise ModelNotConfiguredError(
                f"A fallback has two models or more: {models!r}.", hint='Write FallbackModel("gpt-5.2", "ollama/...").'
            )
        self.models = models
        self.model = SEPARATOR.join(filter(None, map(_name_of, models)))
        self._on = None if on is None else tuple(on)
        self._find = find

    def candidates(self) -> list[Candidate]:
        """Return the models in their order.

        Raises:
            ModelNotConfiguredError: the provider of a name is not there.
        """
        return [self.candidate(number) for number in range(len(self.models))]

    def candidate(self, number: int) -> Candidate:
        """Return one of the models; its provider is asked for no other."""
        given = self.models[number]
        return Candidate(name=_name_of(given), model=given if isinstance(given, Model) else self._find(given))

    def falls_back_on(self, error: Exception) -> bool:
        """Return whether the next model answers after this error of one whose retries are over."""
        if self._on is not None:
            return isinstance(error, self._on)
        return isinstance(error, ModelBehaviorError) or is_retryable(error)

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the advice of the model that raised the error: of the one that knows it."""
        for number in range(len(self.models)):
            try:
                advice = self.candidate(number).model.get_retry_advice(request)
            except ModelNotConfiguredError:
                continue  # it was never asked
            if advice is not None:
                return advice
        return None

    async def close(self) -> None:
        """Close the models that were given."""
        for model in self.models:
            if isinstance(model, Model):
                await model.close()

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the answer of the first model that has one."""
        arguments = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
        last = len(self.models) - 1
        for number in range(last):
            try:
                response = await self.candidate(number).model.get_response(*args, **kwargs)
                check_behaviour(response, arguments)
            except Exception as error:
                if not self.falls_back_on(error):
                    raise
                self.tell(number, error)
            else:
                return response
        return await self.candidate(last).model.get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Yield the events of the first model that answers; what a caller has seen is not taken back."""
        last = len(self.models) - 1
        for number in range(last + 1):
            was_seen, waiting = False, list[Any]()
            try:
                async for event in self.candidate(number).model.stream_response(*args, **kwargs):
                    waiting.append(event)
                    if was_seen or event.type not in _UNSEEN_EVENTS:
                        was_seen = True
                        for each in waiting:
                            yield each
                        waiting = []
            except Exception as error:
                if was_seen or number == last or not self.falls_back_on(error):
                    raise
                self.tell(number, error)
            else:
                for each in waiting:
                    yield each
                return

    def tell(self, number: int, error: Exception) -> None:
        """Log that the next model answers."""
        names = [_name_of(model) or "a model" for model in self.models]
        log.warning("%s failed (%s: %s): %s answers.", names[number], type(error).__name__, error, names[number + 1])


def check_behaviour(response: ModelResponse, arguments: Mapping[str, Any]) -> None:
    """Look at a whole answer as the Runner will: before it is taken, so that another model may answer.

    Raises:
        ModelBehaviorError: it calls a tool that there is not, or its output does not fit the schema.
    """
    calls = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
    tools: Sequence[Tool] = arguments.get("tools") or ()
    handoffs: Sequence[Handoff[Any, Any]] = arguments.get("handoffs") or ()
    known = {tool.name for tool in tools} | {each.tool_name for each in handoffs}
    for call in calls:
        if call.name not in known and getattr(call, "namespace", None) is None:
            raise ModelBehaviorError(f"The model called the tool {call.name!r}, which the agent does not have.")
    schema: AgentOutputSchemaBase | None = arguments.get("output_schema")
    messages = [item for item in response.output if isinstance(item, ResponseOutputMessage)]
    if schema is not None and not schema.is_plain_text() and messages and not calls:
        schema.validate_json("".join(part.text for part in messages[-1].content if part.type == "output_text"))


def _name_of(model: str | Model) -> str | None:
    name = model if isinstance(model, str) else getattr(model, "model", None)
    return name if isinstance(name, str) else None
