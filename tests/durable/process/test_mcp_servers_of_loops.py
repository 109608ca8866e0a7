"""An MCP server that the engine connects belongs to an event loop, and is disconnected with it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from agents import Agent
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, assistant_message, function_call

from timestep import run_agent_workflow

SERVER = Path(__file__).resolve().parents[1] / "steps" / "mcp_desk.py"

pytestmark = pytest.mark.usefixtures("engine")


def servers() -> list[psutil.Process]:
    """Return the processes of the server that live."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if each.status() != psutil.STATUS_ZOMBIE and str(SERVER) in each.cmdline()]


def test_each_loop_connects_the_server_and_disconnects_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = MCPServerStdio(
        {"command": sys.executable, "args": [str(SERVER), "stdio", str(log)]},
        name="desk",
        client_session_timeout_seconds=60,
    )

    async def stamp() -> Any:
        answers = [[function_call("stamp", {"letter": "A"}, call_id="c1")], [assistant_message("done")]]
        agent = Agent[None](name="clerk", model=ScriptedModel(answers), mcp_servers=[server])
        result = await run_agent_workflow(agent, "Stamp")
        assert len(servers()) == 1
        return result.output

    for _ in range(2):
        assert asyncio.run(stamp()) == "done"
        assert servers() == []
    assert log.read_text().splitlines() == ["stamp A"] * 2
