"""A provider of models on loopback that answers, refuses and fails as it is told.

It speaks Chat Completions and Responses, streamed and not, and notes every request with its time. Each request takes
the next entry of the script; a request beyond the script is refused with 418, which nobody makes again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loopback_server import Exchange, Json, LoopbackServer

INPUT_TOKENS, OUTPUT_TOKENS = 11, 7


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came in."""

    at: float
    path: str
    body: Json


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer: text in words, or one call of a tool."""

    text: str = ""
    tool: str | None = None
    arguments: str = "{}"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer with an error status."""

    status: int
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Drop:
    """The connection is closed, or reset, before a word of an answer."""

    is_reset: bool = False


@dataclass(frozen=True, kw_only=True)
class Half:
    """Half of a whole answer, after which the connection is closed; or the half as if it were all."""

    is_closed: bool


@dataclass(frozen=True, kw_only=True)
class Silence:
    """The request is never answered."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A stream that begins with `text` and then breaks.

    `how`: `ends` cleanly without saying that it is finished, `disconnects`, goes on `malformed`, `stalls`, or tells
    of a failure: a passing `error` of the server's own, or a `refusal` of the request.
    """

    text: str
    how: str


Reply = Answer | Refusal | Drop | Half | Silence | Cut


class ProviderServer(LoopbackServer):
    """The provider, listening on a free port until it is closed."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._replies: list[Reply] = []
        self._lock = threading.Lock()
        super().__init__()

    @property
    def url(self) -> str:
        """The base url of the client."""
        return f"{self.address}/v1"

    def script(self, *replies: Reply) -> None:
        """Say what the next requests are answered with."""
        self._replies.extend(replies)

    def take(self, request: Request) -> Reply:
        """Note a request and return its reply."""
        with self._lock:
            self.requests.append(request)
            return self._replies.pop(0) if self._replies else Refusal(status=418)

    def reply(self, exchange: Exchange) -> None:
        reply = self.take(Request(at=time.monotonic(), path=exchange.path, body=exchange.body))
        kind = _Responses if exchange.path.endswith("/responses") else _ChatCompletions
        protocol = kind(len(self.requests))
        match reply:
            case Drop():
                exchange.hang_up(is_reset=reply.is_reset)
            case Half():
                exchange.send_half(
                    json.dumps(protocol.whole(Answer(text="One two"))).encode(), is_closed=reply.is_closed
                )
            case Silence():
                self.released.wait()
                exchange.hang_up()
            case Refusal():
                error = {
                    "message": f"refused with {reply.status}",
                    "type": "refused",
                    "param": None,
                    "code": reply.code,
                }
                exchange.send_json({"error": error}, status=reply.status, headers=reply.headers)
            case Answer() if not exchange.body.get("stream"):
                exchange.send_json(protocol.whole(reply))
            case Answer():
                exchange.begin_stream("text/event-stream")
                exchange.send_chunks([*protocol.begin(), *protocol.items(reply), *protocol.end(reply)])
                exchange.end_stream()
            case Cut():
                exchange.begin_stream("text/event-stream")
                exchange.send_chunks([*protocol.begin(), *protocol.words(reply.text)])
                self._break(exchange, protocol, reply.how)

    def _break(self, exchange: Exchange, protocol: _Protocol, how: str) -> None:
        match how:
            case "ends":
                exchange.end_stream()
            case "disconnects":
                exchange.hang_up()
            case "malformed":
                exchange.send_chunks(['data: {"choices": [{"del\n\n'])
                exchange.end_stream()
            case "stalls":
                self.released.wait()
                exchange.hang_up()
            case "error" | "refusal":
                exchange.send_chunks([protocol.failure("server_error" if how == "error" else "invalid_prompt")])
                exchange.end_stream()
            case _:
                raise AssertionError(how)


class _Protocol:
    """How one of the two protocols writes an answer; `number` makes the ids of its calls unique."""

    def __init__(self, number: int) -> None:
        self.call_id = f"call_{number}"
        self.events = 0

    whole: Callable[[Answer], Json]
    begin: Callable[[], Iterator[str]]
    words: Callable[[str], Iterator[str]]
    items: Callable[[Answer], Iterator[str]]
    end: Callable[[Answer], Iterator[str]]
    failure: Callable[[str], str]


class _ChatCompletions(_Protocol):
    def whole(self, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": answer.text or None}
        if answer.tool is not None:
            message["tool_calls"] = [self._call(answer)]
        choice = {"index": 0, "message": message, "finish_reason": self._reason(answer), "logprobs": None}
        return self._head("chat.completion") | {"choices": [choice], "usage": self._usage()}

    def begin(self) -> Iterator[str]:
        yield self._event({"role": "assistant", "content": ""})

    def words(self, text: str) -> Iterator[str]:
        for word in text.split(" "):
            yield self._event({"content": f"{word} "})

    def items(self, answer: Answer) -> Iterator[str]:
        if answer.text:
            yield from self.words(answer.text)
        if answer.tool is not None:
            yield self._event({"tool_calls": [{"index": 0} | self._call(answer)]})

    def end(self, answer: Answer) -> Iterator[str]:
        yield self._event({}, self._reason(answer))
        yield _data(self._head("chat.completion.chunk") | {"choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    def failure(self, code: str) -> str:
        return _data({"error": {"message": "it failed", "type": code, "param": None, "code": None}})

    def _event(self, delta: Json, finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return _data(self._head("chat.completion.chunk") | {"choices": [choice]})

    def _head(self, kind: str) -> Json:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "scripted"}

    def _call(self, answer: Answer) -> Json:
        return {
            "id": self.call_id,
            "type": "function",
            "function": {"name": answer.tool, "arguments": answer.arguments},
        }

    def _reason(self, answer: Answer) -> str:
        return "stop" if answer.tool is None else "tool_calls"

    def _usage(self) -> Json:
        total = INPUT_TOKENS + OUTPUT_TOKENS
        return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": total}


class _Responses(_Protocol):
    def whole(self, answer: Answer) -> Json:
        return self._response("completed", [self._item(answer)])

    def begin(self) -> Iterator[str]:
        yield self._event("response.created", response=self._response("in_progress", []))
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)

    def words(self, text: str) -> Iterator[str]:
        for word in text.split(" "):
            yield self._event(
                "response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta=f"{word} ",
                logprobs=[],
            )  # fmt: skip

    def items(self, answer: Answer) -> Iterator[str]:
        if answer.text:
            yield from self.words(answer.text)
        yield self._event("response.output_item.done", output_index=0, item=self._item(answer))

    def end(self, answer: Answer) -> Iterator[str]:
        yield self._event("response.completed", response=self._response("completed", [self._item(answer)]))

    def failure(self, code: str) -> str:
        error = {"code": code, "message": "it failed"}
        return self._event("response.failed", response=self._response("failed", []) | {"error": error})

    def _event(self, kind: str, **fields: Any) -> str:
        self.events += 1
        return f"event: {kind}\n" + _data({"type": kind, "sequence_number": self.events} | fields)

    def _item(self, answer: Answer) -> Json:
        if answer.tool is not None:
            call = {"id": "fc_1", "call_id": self.call_id, "name": answer.tool, "arguments": answer.arguments}
            return call | {"type": "function_call", "status": "completed"}
        content = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}]
        return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}

    def _response(self, status: str, output: list[Json]) -> Json:
        usage = {
            "input_tokens": INPUT_TOKENS, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": OUTPUT_TOKENS, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }  # fmt: skip
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "model": "scripted", "status": status,
            "output": output, "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
            "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
            "usage": usage if status == "completed" else None,
        }  # fmt: skip


def _data(body: Json) -> str:
    return f"data: {json.dumps(body)}\n\n"
