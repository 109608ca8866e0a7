"""Keep the lines of libraries out of what commands print, unless something is wrong."""

from __future__ import annotations

import logging

LIBRARIES = ("dbos", "openai", "openai.agents", "httpx", "httpx2", "mcp", "asyncio")


def quieten() -> None:
    """Let libraries log warnings and errors only."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
