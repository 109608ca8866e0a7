"""The HTTP server below every fake one of the tests: on loopback, on a free port, with connections that stay open."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

POLL_SECONDS = 0.02


class LoopbackServer:
    """A server that listens until it is closed; a fake server says in `reply` what it does with a request."""

    def __init__(self) -> None:
        self.released = threading.Event()
        """Set at the latest when the server is closed: what hangs waits for it."""
        self._http = _Http(("127.0.0.1", 0), Exchange)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """The address of the server, such as `http://127.0.0.1:4711`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def reply(self, exchange: Exchange) -> None:
        """Answer a request, or fail as the test wants it."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening; what hangs ends."""
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    owner: LoopbackServer
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what many tests are about."""


class Exchange(BaseHTTPRequestHandler):
    """A request with its JSON, and the ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: _Http
    data: bytes = b""
    body: Json

    def do_GET(self) -> None:
        self.body = {}
        self.server.owner.reply(self)

    def do_POST(self) -> None:
        self.data = self.rfile.read(int(self.headers["content-length"]))
        self.body = json.loads(self.data)
        self.server.owner.reply(self)

    def send_json(self, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a value as JSON; bytes are sent as they are."""
        self.send_whole(value if isinstance(value, bytes) else json.dumps(value).encode(), status, headers=headers)

    def send_whole(
        self,
        data: bytes,
        status: int = 200,
        *,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with data whose length is told before."""
        self._head(status, {"content-type": kind, "content-length": str(len(data))} | dict(headers or {}))
        self.write(data)

    def send_half(self, data: bytes, *, is_closed: bool) -> None:
        """Answer with half of the data, and close the connection; or as if the half were all."""
        half = data[: len(data) // 2]
        self._head(200, {"content-type": "application/json", "content-length": str(len(data if is_closed else half))})
        self.write(half)
        if is_closed:
            self.hang_up()

    def begin_stream(self, kind: str, status: int = 200) -> None:
        """Begin an answer that comes in chunks."""
        self._head(status, {"content-type": kind, "transfer-encoding": "chunked"})

    def send_chunks(self, chunks: Iterable[str | bytes]) -> None:
        """Send the next parts of a stream, each at once."""
        for chunk in chunks:
            data = chunk.encode() if isinstance(chunk, str) else chunk
            self.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end_stream(self) -> None:
        """End a stream as it should end."""
        self.write(b"0\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Send bytes at once."""
        self.wfile.write(data)
        self.wfile.flush()

    def hang_up(self, *, is_reset: bool = False) -> None:
        """Close the connection in the middle, or reset it."""
        self.close_connection = True
        if is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: tests look at what was asked."""

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
