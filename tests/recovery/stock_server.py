"""An MCP server with one tool, in a process of its own; it ends with the process that started it."""

from __future__ import annotations

import asyncio
import os

import side_log

try:
    from mcp.server.mcpserver import MCPServer
except ImportError:  # before mcp 2
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("stock")
_parent = os.getppid()


@server.tool()
async def stock(run: str) -> str:
    """Count what is left."""
    side_log.write("start", run, kind="mcp", name="stock", key=f"{run}:stock")
    if side_log.is_stop(run, "body stock"):
        while not side_log.is_released():
            if os.getppid() != _parent:
                os._exit(0)
            await asyncio.sleep(side_log.POLL_SECONDS)
    side_log.write("end", run, kind="mcp", name="stock", key=f"{run}:stock")
    return "12 left"


if __name__ == "__main__":
    server.run()
