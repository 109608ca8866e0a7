"""An Ollama server on loopback that fails as it is told, and notes every request.

It is for injected faults alone; what an Ollama server does when all is well is shown against one that nobody here
wrote. Each request takes the next entry of the script; a request beyond the script is refused with 418.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

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


class OllamaServer:
    """The server, listening on a free port until it is closed."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.held = threading.Event()
        self.released = threading.Event()
        self._replies: list[Reply] = []
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.ollama = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

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

    def close(self) -> None:
        """Stop listening; what is held or stalled ends."""
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    ollama: OllamaServer
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._reply(self.server.ollama.take(Request(path=self.path, headers=headers, body=body)), body)

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._reply(self.server.ollama.take(Request(path=self.path, headers=headers, body={})), {})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test looks at the requests."""

    def _reply(self, reply: Reply, body: Json) -> None:
        if isinstance(reply, (Reset, Silence)):
            if isinstance(reply, Silence):
                self.server.ollama.released.wait()
            self._reset()
            return
        if isinstance(reply, Held):
            self.server.ollama.held.set()
            self.server.ollama.released.wait()
            reply = reply.reply
        if isinstance(reply, Through):
            data = json.dumps(body).encode()
            request = urllib.request.Request(reply.url + self.path, data, {"content-type": "application/json"})
            with urllib.request.urlopen(request) as response:
                self._stream(response.read().decode().splitlines(), "whole")
        elif isinstance(reply, Refusal):
            error = reply.error if isinstance(reply.error, bytes) else json.dumps({"error": reply.error}).encode()
            self._send(reply.status, error, reply.headers)
        elif isinstance(reply, Lines):
            self._stream(reply.lines, reply.end)
        elif body.get("stream"):
            self._stream(chunks(reply), "whole")
        else:
            self._send(200, json.dumps(reply).encode(), {})

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"content-type": "application/json", "content-length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, lines: Sequence[str | Json], end: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for line in lines:
            data = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)).encode() + b"\n"
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        if end == "whole":
            self.wfile.write(b"0\r\n\r\n")
            return
        if end == "stalls":
            self.server.ollama.released.wait()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
