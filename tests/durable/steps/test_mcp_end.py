"""What becomes of MCP servers that the engine has connected when it stops."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from agents import Agent
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, assistant_message, function_call

import timestep

PROGRAM = str(Path(__file__).parent / "mcp_desk.py")


def servers(log: Path) -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if str(log) in each.cmdline()]


async def test_the_end_of_the_engine_ends_the_servers_of_a_loop_that_lives_on(
    engine: Any, tmp_path: Path, new_id: str, until: Callable[[Callable[[], Any], str], Any]
) -> None:
    log = tmp_path / "desk.log"
    server = MCPServerStdio(
        params={"command": sys.executable, "args": [PROGRAM, "stdio", str(log)]},
        name="desk",
        client_session_timeout_seconds=60,
    )
    model = ScriptedModel([[function_call("stamp", {"letter": "A"}, call_id="c1")], [assistant_message("done")]])
    agent = Agent(name="clerk", mcp_servers=[server], model=model)
    assert (await timestep.run_agent_workflow(agent, "Stamp", workflow_id=new_id)).output == "done"
    [process] = servers(log)

    await timestep.cleanup_dbos()

    assert not process.is_running()
