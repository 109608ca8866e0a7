"""A server of Chat Completions on loopback that answers `done` or refuses, and notes when it was asked."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StampingServer:
    """The server, listening on a free port until it is closed. `stamps` are (seconds, what the user said)."""

    def __init__(self) -> None:
        self.stamps: list[tuple[float, str]] = []
        self.refusals: dict[str, int] = {}
        """The seconds of `Retry-After` by what the user says; each is refused once."""
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        """The base url of a client."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    owner: StampingServer
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = body["messages"][-1]["content"]
        owner.stamps.append((time.monotonic(), said))
        if (seconds := owner.refusals.pop(said, None)) is not None:
            return self._send(429, {"error": {"message": "slow down"}}, {"retry-after": str(seconds)})
        message = {"role": "assistant", "content": "done"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": "stamped"}
        self._send(200, head | {"choices": [choice], "usage": usage}, {})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"content-type": "application/json", "content-length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test looks at the stamps."""
