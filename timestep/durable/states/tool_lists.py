"""The tool lists of MCP servers that a snapshot brings along."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Generator, Mapping
from typing import Any

_recorded: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("timestep_mcp_tools")


@contextlib.contextmanager
def using_tool_lists(recorded: Mapping[str, Any]) -> Generator[None]:
    """Answer with these recorded lists, by server name, instead of asking: while a RunState is rebuilt."""
    token = _recorded.set(recorded)
    try:
        yield
    finally:
        _recorded.reset(token)


def recorded_tool_list(server: str) -> Any:
    """Return the recorded list of a server while a state is rebuilt; None without one."""
    return _recorded.get({}).get(server)
