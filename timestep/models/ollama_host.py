"""`OLLAMA_HOST`, the address that every user of Ollama sets, read as Ollama's own programs read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from timestep.errors import ModelNotConfiguredError

HOST_VARIABLE = "OLLAMA_HOST"
LOCAL_URL = "http://localhost:11434"

_PORT = 11434
_PORTS = {"http": 80, "https": 443}
_EVERY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server listens that listens at every address of its machine: what a client means is this machine."""


def local_url(*, environ: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return the address of the local Ollama, and why: `OLLAMA_HOST` or the default.

    The port is 11434 when neither it nor a scheme is given, else that of the scheme.

    Raises:
        ModelNotConfiguredError: `OLLAMA_HOST` is no address.
    """
    given = (os.environ if environ is None else environ).get(HOST_VARIABLE, "").strip().strip("\"'").strip()
    if not given:
        return LOCAL_URL, "default"
    scheme, mark, rest = given.partition("://")
    scheme, rest = (scheme.lower(), rest) if mark else ("http", given)
    try:
        if scheme not in _PORTS or any(map(str.isspace, rest)):
            raise ValueError("it is no address of HTTP")
        parts = urlsplit(f"{scheme}://{f'[{rest}]' if rest.count(':') > 1 and '[' not in rest else rest}")
        port = parts.port if parts.port is not None else _PORTS[scheme] if mark else _PORT
        host = _EVERY_ADDRESS.get(parts.hostname or "", parts.hostname or "")
    except ValueError as error:
        raise ModelNotConfiguredError(
            f"{HOST_VARIABLE} is {given!r}: {error}.", hint="Write it as gpu-1, gpu-1:11434 or http://gpu-1:11434."
        ) from error
    path = parts.path.rstrip("/")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}", HOST_VARIABLE
