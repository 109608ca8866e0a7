"""An MCP server for the tests: `python mcp_desk.py stdio LOG` or `... http LOG PORT`. It logs what it is asked."""

import sys
from pathlib import Path

from mcp.server import MCPServer

kind, log = sys.argv[1], Path(sys.argv[2])
server = MCPServer("desk")


@server.tool()
def stamp(letter: str) -> str:
    """Stamp a letter."""
    with log.open("a") as lines:
        lines.write(f"stamp {letter}\n")
    return f"{letter} stamped"


@server.tool()
def tear(letter: str) -> str:
    """Tear a letter."""
    raise ValueError(f"{letter} is too strong")


if kind == "stdio":
    server.run("stdio")
else:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[3]))
