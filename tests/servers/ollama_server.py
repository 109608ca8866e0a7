"""An Ollama server on loopback that fails as it is told, and notes every request.

It is for injected faults alone; what an Ollama server does when all is well is shown against one that nobody here
wrote. Each request takes the next entry of the script; a request beyond the script is refused with 418.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loopback_server import Exchange, Json, LoopbackServer

READ, WRITTEN = 11, 7
END: Json = {"done": True, "done_reason": "stop", "prompt_eval_count": READ, "eval_count": WRITTEN}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: Json


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer with an error status."""

    status: int
    error: Any = "refused"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What is written as it stands, and how it ends then: `whole`, or it `disconnects`, or `stalls`."""

    lines: Sequence[str | Json]
    end: str = "whole"


@dataclass(frozen=True, kw_only=True)
class Through:
    """What the server at this address answers."""

    url: str


@dataclass(frozen=True, kw_only=True)
class Held:
    """An answer that waits for `OllamaServer.released`."""

    reply: Json | Through


@dataclass(frozen=True, kw_only=True)
class Reset:
    """The connection is reset before a word of an answer."""


@dataclass(frozen=True, kw_only=True)
class Silence:
    """The request is not answered until the server is closed."""


Reply = Json | Refusal | Lines | Through | Held | Reset | Silence


def answer(content: str = "", *, end: Json | None = None, **message: Any) -> Json:
    """Return a whole answer; a stream gets it in words."""
    return {
        "model": "m",
        "message": {"role": "assistant", "content": content, **message},
        **(END if end is None else end),
    }


def call(name: str, **arguments: Any) -> Json:
    """Return a tool call."""
    return {"function": {"name": name, "arguments": arguments}}


def chunks(whole: Json) -> list[Json]:
    """Return an answer as a stream has it: thinking, words, calls, and the end."""
    message = whole["message"]
    parts: list[Json] = [{"thinking": message["thinking"]}] if message.get("thinking") else []
    words = message["content"].split(" ") if message["content"] else []
    parts += [{"content": word if place == 0 else f" {word}"} for place, word in enumerate(words)]
    parts += [{"content": "", "tool_calls": [each]} for each in message.get("tool_calls", ())]
    found = [{"model": "m", "message": {"role": "assistant", **part}, "done": False} for part in parts]
    last = {key: value for key, value in whole.items() if key != "message"}
    return [*found, last | {"message": {"role": "assistant", "content": ""}}]


class OllamaServer(LoopbackServer):
    """The server, listening on a free port until it is closed."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.held = threading.Event()
        self._replies: list[Reply] = []
        self._lock = threading.Lock()
        super().__init__()

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.address

    @property
    def bodies(self) -> list[Json]:
        """The bodies of the requests."""
        return [request.body for request in self.requests]

    def script(self, *replies: Reply) -> None:
        """Say what the next requests are answered with."""
        self._replies.extend(replies)

    def take(self, request: Request) -> Reply:
        """Note a request and return its reply."""
        with self._lock:
            self.requests.append(request)
            return self._replies.pop(0) if self._replies else Refusal(status=418)

    def reply(self, exchange: Exchange) -> None:
        headers = {name.lower(): value for name, value in exchange.headers.items()}
        reply = self.take(Request(path=exchange.path, headers=headers, body=exchange.body))
        if isinstance(reply, Held):
            self.held.set()
            self.released.wait()
            reply = reply.reply
        match reply:
            case Silence():
                self.released.wait()
                exchange.hang_up(is_reset=True)
            case Reset():
                exchange.hang_up(is_reset=True)
            case Through():
                request = urllib.request.Request(
                    reply.url + exchange.path, exchange.data, {"content-type": "application/json"}
                )
                with urllib.request.urlopen(request) as response:
                    self._stream(exchange, response.read().decode().splitlines())
            case Refusal():
                error = reply.error if isinstance(reply.error, bytes) else {"error": reply.error}
                exchange.send_json(error, status=reply.status, headers=reply.headers)
            case Lines():
                self._stream(exchange, reply.lines, reply.end)
            case _ if exchange.body.get("stream"):
                self._stream(exchange, chunks(reply))
            case _:
                exchange.send_json(reply)

    def _stream(self, exchange: Exchange, lines: Sequence[str | Json], end: str = "whole") -> None:
        exchange.begin_stream("application/x-ndjson")
        texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
        exchange.send_chunks(f"{text}\n" for text in texts)
        if end == "whole":
            exchange.end_stream()
            return
        if end == "stalls":
            self.released.wait()
        exchange.hang_up()
