"""The events of a streamed answer, in the shapes and the order in which the SDK's own models emit them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from agents.items import TResponseOutputItem, TResponseStreamEvent
from agents.usage import Usage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_reasoning_text_delta_event import ResponseReasoningTextDeltaEvent
from openai.types.responses.response_reasoning_text_done_event import ResponseReasoningTextDoneEvent

from timestep.models.from_ollama import NewId, call_item, items_of, logprobs_of, message_item, new_id, reasoning_item

Json = Any
Events = Iterator[TResponseStreamEvent]


@dataclass(kw_only=True)
class StreamedAnswer:
    """An answer that arrives in chunks. Its items are those that the whole answer has, with the same ids.

    Thinking, text and calls may alternate; the items are in the order in which they began.
    """

    model: str
    new_id: NewId = new_id
    response: Response = field(init=False)
    last: Mapping[str, Json] = field(default_factory=dict)
    _thinking: str = ""
    _text: str = ""
    _calls: list[Mapping[str, Json]] = field(default_factory=list)
    _logprobs: list[Json] = field(default_factory=list)
    _number: int = 0
    _ids: dict[str, list[str]] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.response = Response(
            id=self.new_id("chatcmpl"),
            created_at=0,
            model=self.model,
            object="response",
            output=[],
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
        )

    @property
    def is_done(self) -> bool:
        """Whether the server has said that the answer is whole."""
        return bool(self.last.get("done"))

    @property
    def whole(self) -> dict[str, Json]:
        """Return the answer as the server would have sent it at once."""
        message = {"content": self._text, "thinking": self._thinking, "tool_calls": self._calls}
        return {**self.last, "message": message, "logprobs": self._logprobs}

    def begin(self) -> Events:
        """Yield the event that the answer has begun."""
        yield ResponseCreatedEvent(type="response.created", response=self.response, sequence_number=self._next())

    def take(self, chunk: Mapping[str, Json]) -> Events:
        """Yield the events of a chunk."""
        self.last = chunk
        message = cast("Mapping[str, Json]", chunk.get("message") or {})
        if thinking := message.get("thinking"):
            yield from self._think(str(thinking))
        logprobs = chunk.get("logprobs") or []
        self._logprobs += logprobs
        if text := message.get("content"):
            yield from self._say(str(text), logprobs)
        for call in cast("Sequence[Mapping[str, Json]]", message.get("tool_calls") or ()):
            yield from self._call(call)

    def end(self, usage: Usage) -> Events:
        """Yield the events of the finished items and of the finished answer.

        Raises:
            ModelBehaviorError: the model used up its tokens before a word of its answer.
        """
        items = items_of(self.whole, model=self.model, new_id=self._known_id)
        for item in items:
            yield from self._finish(item)
        items.sort(key=lambda item: self._places[str(getattr(item, "id", ""))])
        final = self.response.model_copy(update={"output": items, "usage": response_usage(usage)})
        yield ResponseCompletedEvent(type="response.completed", response=final, sequence_number=self._next())

    def _think(self, text: str) -> Events:
        if not self._thinking:
            item_id = self._drawn_id("rs")
            item = reasoning_item("", model=self.model, item_id=item_id).model_copy(update={"content": []})
            yield self._added(item)
        self._thinking += text
        yield ResponseReasoningTextDeltaEvent(
            type="response.reasoning_text.delta",
            item_id=self._ids["rs"][0],
            output_index=self._places[self._ids["rs"][0]],
            content_index=0,
            delta=text,
            sequence_number=self._next(),
        )

    def _say(self, text: str, logprobs: Json) -> Events:
        if not self._text:
            yield from self._begin_message()
        self._text += text
        item_id = self._ids["msg"][0]
        yield ResponseTextDeltaEvent.model_validate(
            {
                "type": "response.output_text.delta",
                "item_id": item_id,
                "output_index": self._places[item_id],
                "content_index": 0,
                "delta": text,
                "logprobs": [each.model_dump() for each in logprobs_of(logprobs)],
                "sequence_number": self._next(),
            }
        )

    def _begin_message(self) -> Events:
        item_id = self._drawn_id("msg")
        item = message_item("", model=self.model, item_id=item_id, done_reason=None)
        yield self._added(item.model_copy(update={"content": [], "status": "in_progress"}))
        yield ResponseContentPartAddedEvent(
            type="response.content_part.added",
            item_id=item_id,
            output_index=self._places[item_id],
            content_index=0,
            part=ResponseOutputText(text="", type="output_text", annotations=[], logprobs=[]),
            sequence_number=self._next(),
        )

    def _call(self, call: Mapping[str, Json]) -> Events:
        self._calls.append(call)
        item_id, call_id = self._drawn_id("fc"), self._drawn_id("call")
        item = call_item(call, model=self.model, item_id=item_id, call_id=call_id)
        yield self._added(item.model_copy(update={"arguments": "", "status": "in_progress"}))
        yield ResponseFunctionCallArgumentsDeltaEvent(
            type="response.function_call_arguments.delta",
            item_id=item_id,
            output_index=self._places[item_id],
            delta=item.arguments,
            sequence_number=self._next(),
        )

    def _added(self, item: TResponseOutputItem) -> ResponseOutputItemAddedEvent:
        place = self._places.setdefault(str(getattr(item, "id", "")), len(self._places))
        return ResponseOutputItemAddedEvent(
            type="response.output_item.added", item=item, output_index=place, sequence_number=self._next()
        )

    def _finish(self, item: TResponseOutputItem) -> Events:
        assert isinstance(item, (ResponseReasoningItem, ResponseOutputMessage, ResponseFunctionToolCall))
        item_id = item.id or ""
        if item_id not in self._places:  # an answer without a word has a message all the same
            yield self._added(item)
        place = self._places[item_id]
        if isinstance(item, ResponseReasoningItem):
            yield ResponseReasoningTextDoneEvent(
                type="response.reasoning_text.done",
                item_id=item_id,
                output_index=place,
                content_index=0,
                text=self._thinking,
                sequence_number=self._next(),
            )
        elif isinstance(item, ResponseOutputMessage) and self._text:
            yield ResponseContentPartDoneEvent.model_validate(
                {
                    "type": "response.content_part.done",
                    "item_id": item_id,
                    "output_index": place,
                    "content_index": 0,
                    "part": item.content[0].model_dump(),
                    "sequence_number": self._next(),
                }
            )
        yield ResponseOutputItemDoneEvent(
            type="response.output_item.done", item=item, output_index=place, sequence_number=self._next()
        )

    def _drawn_id(self, prefix: str) -> str:
        drawn = self.new_id(prefix)
        self._ids.setdefault(prefix, []).append(drawn)
        return drawn

    def _known_id(self, prefix: str) -> str:
        """Return the ids in the order in which they were drawn, then fresh ones."""
        known = self._ids.get(prefix)
        return known.pop(0) if known else self.new_id(prefix)

    def _next(self) -> int:
        self._number += 1
        return self._number - 1


def events_of(answer: Mapping[str, Json], usage: Usage, *, model: str) -> Events:
    """Yield the events of an answer that arrived whole."""
    streamed = StreamedAnswer(model=model)
    yield from streamed.begin()
    yield from streamed.take(answer)
    yield from streamed.end(usage)


def response_usage(usage: Usage) -> ResponseUsage:
    """Return the usage as the Responses API writes it."""
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=usage.input_tokens_details,
        output_tokens_details=usage.output_tokens_details,
    )
