"""Tools of an MCP server: the list of tools and every call are steps, and the server is connected where it is needed.

Run it with `python examples/mcp_tools.py`. The same file is the server, which the executor starts as a child process.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

from agents import Agent
from agents.mcp import MCPServerStdio
from scripted import DecidingModel, Decision

from timestep import run_agent_workflow


def serve() -> None:
    """Be the server: one tool over stdin and stdout."""
    from mcp.server import MCPServer

    server = MCPServer("tides")

    @server.tool()
    def high_water(harbour: str) -> str:
        """Return the time of the next high water."""
        return f"{harbour}: high water at 14:20"

    server.run("stdio")


def decide(said: list[str], results: list[str]) -> Decision:
    return f"I asked: {results[0]}" if results else [("high_water", {"harbour": "Ostend"})]


tides = MCPServerStdio(name="tides", params={"command": sys.executable, "args": [__file__, "serve"]})
agent = Agent(name="harbour-master", model=DecidingModel(decide), mcp_servers=[tides])


async def main() -> None:
    result = await run_agent_workflow(
        agent=agent, input_items="When is high water in Ostend?", workflow_id=f"tide-{uuid.uuid4().hex[:8]}"
    )
    print(result.output)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else asyncio.run(main())
