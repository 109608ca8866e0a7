"""A server of OpenAI's protocols that fails as it is told and judges its client, and that nobody here wrote: llmock."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60

Json = dict[str, Any]


class Llmock:
    """The server, from outside."""

    def __init__(self, url: str) -> None:
        self.url = url

    def script(self, *behaviours: Json) -> None:
        """Forget what was asked, and do this with the next requests."""
        self._call("POST", "reset")
        self._call("POST", "scenario", {"behaviors": list(behaviours)})

    @property
    def statuses(self) -> list[int]:
        """The status of every answer since the script was given."""
        return [each["status"] for each in self._call("GET", "requests")["requests"]]

    @property
    def findings(self) -> list[str]:
        """What the client did wrong, in the server's words."""
        return [each["code"] for each in self._call("GET", "verdict")["findings"]]

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        request = urllib.request.Request(f"{self.url}/_llmock/{path}", method=method)
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, json.dumps(body).encode() if body is not None else None) as response:
            return json.load(response)


@contextmanager
def serve_llmock() -> Iterator[Llmock]:
    """Serve for the time of a `with`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("llmock")
    words = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            server = Llmock(f"http://127.0.0.1:{port}")
            limit = time.monotonic() + LIMIT_SECONDS
            while not _answers(server):
                log.seek(0)
                assert process.poll() is None, log.read()
                assert time.monotonic() < limit, log.read()
                time.sleep(0.05)
            yield server
        finally:
            process.terminate()
            process.wait()


def _answers(server: Llmock) -> bool:
    try:
        return server.statuses == []
    except (urllib.error.URLError, OSError):
        return False
