"""HTTP clients whose connections belong to the event loop that asks, stay open there, and are closed with it."""

from __future__ import annotations

import functools
import ssl
from typing import Any

import httpx2
from agents.models import openai_provider
from openai import DEFAULT_TIMEOUT, DefaultAsyncHttpx2Client

from timestep.event_loops import of_running_loop


class PerLoopClient(httpx2.AsyncClient):
    """A client that may be used in any event loop: each has connections of its own.

    Args:
        limits: How many connections each of the loops may have.
    """

    def __init__(self, *, limits: httpx2.Limits | None = None) -> None:
        super().__init__(transport=_NoTransport(), timeout=DEFAULT_TIMEOUT, follow_redirects=True)
        self._limits = limits

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request over the connections of the running loop."""
        client = of_running_loop(self, self._make, httpx2.AsyncClient.aclose)
        return await client.send(request, **options)

    def _make(self) -> httpx2.AsyncClient:
        options: dict[str, Any] = {} if self._limits is None else {"limits": self._limits}
        return DefaultAsyncHttpx2Client(verify=certificates(), **options)


class _NoTransport(httpx2.AsyncBaseTransport):
    """What the client itself has: it opens no connections."""


@functools.cache
def certificates() -> ssl.SSLContext:
    """Return what servers are verified with; it takes long to read, and every client may have it."""
    return httpx2.create_ssl_context()


@functools.cache
def shared_http_client() -> httpx2.AsyncClient:
    """Return the client of this process for OpenAI."""
    return PerLoopClient()


def install() -> None:
    """Let every `OpenAIProvider` that makes its client from now on use the shared one; may be called again."""
    openai_provider.shared_http_client = shared_http_client
