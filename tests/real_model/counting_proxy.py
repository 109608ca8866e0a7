"""Between the agents and the model: notes every request, and can hold an answer back in the middle."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

HELD_AFTER = 10
"""How many parts of an answer go through before it is held; its last part never does."""

LAST_PART = re.compile(rb'"finish_reason": ?"')

PAUSE_SECONDS = 0.1
"""Between the parts of an answer that is to be held: longer than text waits for more of it."""


class CountingProxy:
    """The proxy, listening on a free port until it is closed."""

    def __init__(self, model_url: str) -> None:
        self.model_address = model_url.removeprefix("http://")
        self.requests: list[Json] = []
        self.released = threading.Event()
        self.is_held: Callable[[Json], bool] = lambda _: False
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.proxy = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        """The address that clients use."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def hold(self, is_held: Callable[[Json], bool]) -> None:
        """Hold the answers to requests of which this is true, until they are released."""
        self.is_held = is_held

    def release(self) -> None:
        """Let all answers through from now on."""
        self.released.set()

    def close(self) -> None:
        """Stop listening."""
        self.release()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    proxy: CountingProxy
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_POST(self) -> None:
        proxy = self.server.proxy
        data = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(data)
        proxy.requests.append(body)
        upstream = http.client.HTTPConnection(proxy.model_address)
        try:
            upstream.request("POST", self.path, data, {"content-type": "application/json"})
            self._pass_on(upstream.getresponse(), is_held=proxy.is_held(body) and not proxy.released.is_set())
        finally:
            upstream.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test looks at the requests."""

    def _pass_on(self, answer: http.client.HTTPResponse, *, is_held: bool) -> None:
        self.send_response(answer.status)
        self.send_header("content-type", answer.getheader("content-type", "application/json"))
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        parts = 0
        while line := answer.readline():
            if is_held and line.startswith(b"data: "):
                parts += 1
                time.sleep(PAUSE_SECONDS)
                if parts > HELD_AFTER or LAST_PART.search(line):
                    self.server.proxy.released.wait()
            self._write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
