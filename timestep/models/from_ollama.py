"""An answer of Ollama as output items of the Responses API: a pure function, but for the ids that it is given."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from agents import ModelBehaviorError
from agents.items import TResponseOutputItem
from agents.usage import Usage
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)
from openai.types.responses.response_output_text import Logprob
from openai.types.responses.response_reasoning_item import Content

from timestep.words import FUNCTION_CALL

Json = Any
NewId = Callable[[str], str]

_LENGTHS = {"call": 24, "chatcmpl": 29}
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def new_id(prefix: str) -> str:
    """Return a fresh id such as `call_` with 24 characters. Ollama's own ids may repeat within a run."""
    mark = "-" if prefix == "chatcmpl" else "_"
    return prefix + mark + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTHS.get(prefix, 24)))


def items_of(answer: Mapping[str, Json], *, model: str, new_id: NewId = new_id) -> list[TResponseOutputItem]:
    """Return thinking, text and tool calls of a whole answer, in this order, each with an id of its own.

    Raises:
        ModelBehaviorError: the model used up its tokens before a word of its answer.
    """
    message = cast("Mapping[str, Json]", answer.get("message") or {})
    calls = cast("Sequence[Mapping[str, Json]]", message.get("tool_calls") or ())
    text, thinking = str(message.get("content") or ""), str(message.get("thinking") or "")
    reason = answer.get("done_reason")
    if reason == "length" and not text and not calls:
        raise ModelBehaviorError(
            f"The model {model!r} used up its tokens (done_reason 'length') before a word of its answer."
        )
    items: list[TResponseOutputItem] = []
    if thinking:
        items.append(reasoning_item(thinking, model=model, item_id=new_id("rs")))
    if text or not calls:
        logprobs = logprobs_of(answer.get("logprobs"))
        items.append(message_item(text, model=model, item_id=new_id("msg"), done_reason=reason, logprobs=logprobs))
    items += [call_item(call, model=model, item_id=new_id("fc"), call_id=new_id("call")) for call in calls]
    return items


def reasoning_item(text: str, *, model: str, item_id: str) -> ResponseReasoningItem:
    """Return the item of what the model thought."""
    content = [Content(text=text, type="reasoning_text")]
    return ResponseReasoningItem.model_validate(
        {"id": item_id, "type": "reasoning", "summary": [], "content": content, "provider_data": {"model": model}}
    )


def message_item(
    text: str, *, model: str, item_id: str, done_reason: str | None, logprobs: Sequence[Logprob] = ()
) -> ResponseOutputMessage:
    """Return the item of what the model said; one that was cut is `incomplete`."""
    part = ResponseOutputText(text=text, type="output_text", annotations=[], logprobs=[*logprobs])
    return ResponseOutputMessage.model_validate(
        {
            "id": item_id,
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if done_reason == "length" else "completed",
            "content": [part],
            "provider_data": _provider_data(model, done_reason),
        }
    )


def call_item(call: Mapping[str, Json], *, model: str, item_id: str, call_id: str) -> ResponseFunctionToolCall:
    """Return the item of a tool call; what the server calls it is kept beside it."""
    function = cast("Mapping[str, Json]", call.get("function") or {})
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    return ResponseFunctionToolCall.model_validate(
        {
            "id": item_id,
            "type": FUNCTION_CALL,
            "call_id": call_id,
            "name": str(function.get("name") or ""),
            "arguments": written,
            "status": "completed",
            "provider_data": {"model": model},
        }
    )


def usage_of(*answers: Mapping[str, Json]) -> Usage:
    """Return the tokens of the requests of a model call; what the server does not count is 0."""
    entries = Usage()
    for answer in answers:
        read, written = _count(answer, "prompt_eval_count"), _count(answer, "eval_count")
        entries.add(Usage(requests=1, input_tokens=read, output_tokens=written, total_tokens=read + written))
    return entries


def logprobs_of(given: Json) -> list[Logprob]:
    """Return the probabilities of the tokens."""
    found = cast("Sequence[Mapping[str, Json]]", given or ())
    return [Logprob.model_validate(_logprob(each) | {"top_logprobs": _top(each)}) for each in found]


def _top(token: Mapping[str, Json]) -> list[dict[str, Json]]:
    return [_logprob(each) for each in token.get("top_logprobs") or ()]


def _logprob(token: Mapping[str, Json]) -> dict[str, Json]:
    text = str(token.get("token") or "")
    return {"token": text, "logprob": token.get("logprob") or 0.0, "bytes": [*text.encode()]}


def _count(answer: Mapping[str, Json], name: str) -> int:
    value = answer.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _provider_data(model: str, done_reason: str | None) -> dict[str, Json]:
    return {"model": model, "finish_reason": done_reason} if done_reason else {"model": model}
