"""The conversation of eight inputs through Responses, Chat Completions and Ollama, over HTTP.

The server is one that nobody here wrote; it answers by what it is sent, so that a history that arrives mangled has
another answer, or none.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import conversation
import pytest
from aimock_server import journal_of
from conversation import FIRST, ITEMS, SECOND

from timestep import (
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModelProvider,
    OpenAICompatibleProvider,
    Session,
    set_default_model_provider,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("launched")]

MODES = [mode for mode in conversation.MODES if mode["is_parallel"] is mode["stream"]]


@pytest.fixture
def provider(aimock: str) -> None:
    found = MultiModelProviderMap()
    found.add_provider("ollama", OllamaModelProvider(base_url=aimock))
    found.add_provider("chat", OpenAICompatibleProvider(f"{aimock}/v1"))
    found.add_provider("responses", OpenAICompatibleProvider(f"{aimock}/v1", use_responses=True))
    set_default_model_provider(MultiModelProvider(found))


def last_request(aimock: str, path: str) -> str:
    """Return the last request of a path, as the server has noted it."""
    return json.dumps([each for each in journal_of(aimock) if each["path"] == path][-1]["body"])


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("chat/m", "/v1/chat/completions"),
        pytest.param("responses/m", "/v1/responses", marks=pytest.mark.long),
        pytest.param("ollama/m", "/api/chat", marks=pytest.mark.long),
    ],
)
async def test_a_conversation_holds_exactly_what_was_said(
    provider: None, aimock: str, name: str, path: str, mode: dict[str, bool]
) -> None:
    session_id = f"talk-{uuid.uuid4().hex[:8]}"
    said = await conversation.first_part(session_id, **mode, model=lambda _: name)
    said += await conversation.second_part(session_id, **mode, model=lambda _: name)
    assert said == FIRST + SECOND
    items: list[Any] = await Session(session_id).get_items()
    assert [item.get("role") or item["type"] for item in items] == ITEMS
    assert len(items) == 20
    shown = last_request(aimock, path)
    for words in ("my name is Ada", "Oslo is sunny", "Paris is sunny", "know my name", "on this image"):
        assert words in shown
