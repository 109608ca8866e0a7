"""A model server on loopback that keeps connections open, and programs with event loops of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from keep_alive_server import KeepAliveServer


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeepAliveServer]:
    """A server of models; names without a prefix are asked there."""
    server = KeepAliveServer()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield server
    server.close()
