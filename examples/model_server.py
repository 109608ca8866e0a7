"""A model server on loopback, for the examples: it speaks a little of Ollama's protocol and of OpenAI's.

In your own program there is a real one: Ollama, OpenAI, or what speaks like them.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agents import set_tracing_disabled

set_tracing_disabled(True)  # there is no key to send traces with


class _Handler(BaseHTTPRequestHandler):
    name = ""
    is_down = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = f"{body['model']} of {self.name}: you said {body['messages'][-1]['content']!r}"
        message = {"role": "assistant", "content": text}
        if self.is_down:
            self._send(503, {"error": f"{self.name} is down"})
        elif self.path == "/api/chat":
            counts = {"prompt_eval_count": 5, "eval_count": 9}
            self._send(200, {"model": body["model"], "message": message, "done": True, "done_reason": "stop"} | counts)
        else:
            usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            head = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
            self._send(200, head | {"choices": [choice], "usage": usage})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def model_server(name: str, *, is_down: bool = False) -> Iterator[str]:
    """Serve models for the time of a `with`; its value is the address."""
    handler = type("Handler", (_Handler,), {"name": name, "is_down": is_down})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
