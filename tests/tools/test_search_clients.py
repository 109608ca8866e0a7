"""The client of the web search belongs to the event loop that searches."""

from __future__ import annotations

import asyncio
from typing import Any

import firecrawl
import pytest
from firecrawl_server import FirecrawlServer

from timestep import web_search


def test_a_loop_has_one_client_and_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = firecrawl.AsyncFirecrawl

    def noted(**options: Any) -> Any:
        made.append(make(**options))
        return made[-1]

    async def search_twice() -> None:
        for _ in range(2):
            assert "Tides 1" in await web_search("tides", search_context_size="low")

    server = FirecrawlServer()
    monkeypatch.setenv("FIRECRAWL_API_KEY", "fc-secret")
    monkeypatch.setenv("FIRECRAWL_API_URL", server.url)
    monkeypatch.setattr(firecrawl, "AsyncFirecrawl", noted)
    try:
        for loops in (1, 2):
            asyncio.run(search_twice())
            assert len(made) == loops
            assert made[-1]._v2_client.async_http_client._client.is_closed
    finally:
        server.close()
