"""The conversation of eight inputs: every kind of turn in one session, which holds exactly what was said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import conversation
import pytest
from conversation import FIRST, ITEMS, SECOND


def items_of(engine: Any, session_id: str) -> list[str]:
    rows = engine.query("select item from timestep.session_items where session_id = %s order by position", session_id)
    return [row["item"].get("role") or row["item"]["type"] for row in rows]


@pytest.mark.parametrize("mode", conversation.MODES, ids=str)
async def test_a_conversation_in_one_process(engine: Any, mode: dict[str, bool]) -> None:
    session_id = f"talk-{uuid.uuid4().hex[:8]}"
    assert await conversation.first_part(session_id, **mode) == FIRST
    assert await conversation.second_part(session_id, **mode) == SECOND
    assert len(ITEMS) == 20
    assert items_of(engine, session_id) == ITEMS


def test_conversations_in_two_processes(engine: Any, server: Any) -> None:
    sessions = [f"talk-{uuid.uuid4().hex[:8]}" for _ in conversation.MODES]
    environment = {**os.environ, "PG_CONNECTION_URI": server.url(engine.name)}
    script = str(Path(conversation.__file__))
    for part, expected in (("first", FIRST), ("second", SECOND)):
        command = [sys.executable, script, part, *sessions]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [expected] * len(sessions)
    assert [items_of(engine, session_id) for session_id in sessions] == [ITEMS] * len(sessions)
