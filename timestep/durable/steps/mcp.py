"""MCP in durable runs: the tool list is a step, a call runs inside its `tool_call` step.

Servers are connected when they are first needed, in the process that executes, and stay connected until the engine
stops. A replayed list needs no server. A server belongs to the event loop that connected it; calls from another loop
are handed over.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
from concurrent.futures import Future
from typing import Any

from agents import RunContextWrapper
from agents.mcp import MCPServer, MCPServerManager
from mcp.types import Tool as MCPTool
from pydantic import TypeAdapter

from timestep.durable.journal.scope import active_scope
from timestep.durable.journal.step import Envelope, run_step, value_of
from timestep.durable.seams import agents_sdk, dbos_sdk
from timestep.durable.states.tool_lists import recorded_tool_list
from timestep.words import MCP_LIST_TOOLS

log = logging.getLogger("timestep")

CLOSE_SECONDS = 10
"""How long a server may take to close."""

_TOOLS: TypeAdapter[list[MCPTool]] = TypeAdapter(list[MCPTool])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Home:
    """The loop that a server belongs to; `ready` is done when it is connected."""

    server: MCPServer
    loop: asyncio.AbstractEventLoop
    manager: MCPServerManager
    ready: Future[None]


_homes: dict[int, _Home] = {}
"""Servers that this process connects or has connected, by identity."""

_connecting: set[asyncio.Task[None]] = set()
"""Keeps the tasks that connect from being collected."""


async def list_mcp_tools(server: MCPServer, run_context: RunContextWrapper[Any], agent: Any) -> list[MCPTool]:
    """Return the tools of a server; in a durable run the list is a step. A repeat asks the server again."""
    if (recorded := recorded_tool_list(server.name)) is not None:
        return _TOOLS.validate_python(recorded)
    scope = active_scope()
    if scope is None:
        return await agents_sdk.list_mcp_tools(server, run_context, agent)

    async def body() -> Envelope:
        tools = await _at_home(server, lambda: agents_sdk.list_mcp_tools(server, run_context, agent))
        return {"ok": _TOOLS.dump_python(tools, mode="json", by_alias=True, exclude_none=True)}

    reservation = scope.reserve()
    name = scope.step_name(MCP_LIST_TOOLS, server.name, str(reservation.step_id))
    envelope = await run_step(scope.segment, reservation, name, body)
    if "ok" in envelope:
        scope.segment.record.mcp_tools[server.name] = envelope["ok"]
    return _TOOLS.validate_python(value_of(envelope))


async def invoke_mcp_tool(server: MCPServer, *arguments: Any, **named: Any) -> Any:
    """Call a tool of a server; in a durable run this is inside the call's step and connects the server if needed."""
    if not dbos_sdk.is_in_step():
        return await agents_sdk.invoke_mcp_tool(server, *arguments, **named)
    return await _at_home(server, lambda: agents_sdk.invoke_mcp_tool(server, *arguments, **named))


def has_mcp_servers() -> bool:
    """Whether this process has connected a server that is not closed yet."""
    return bool(_homes)


async def close_mcp_servers() -> None:
    """Disconnect the servers that this process connected, each on its own loop; those of a loop that ended are gone."""
    homes = list(_homes.values())
    _homes.clear()
    for home in homes:
        if not home.loop.is_running():
            continue
        try:
            closing = asyncio.run_coroutine_threadsafe(home.manager.cleanup_all(), home.loop)
            await asyncio.wait_for(asyncio.wrap_future(closing), CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - the others are closed too, and the engine has ended
            log.warning("The MCP server %s did not close: %s: %s", home.server.name, type(error).__name__, error)


async def _at_home(server: MCPServer, function: Any) -> Any:
    loop = asyncio.get_running_loop()
    home = await _connect(server, loop)
    if home is loop:
        return await function()

    async def call() -> Any:
        return await function()

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), home))


async def _connect(server: MCPServer, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """Return the loop of a server when it is connected; parallel runs wait for one connection."""
    home = _homes.get(id(server))
    if home is None or home.loop.is_closed():
        if getattr(server, "session", True) is not None and home is None:  # connected by the program itself
            return loop
        home = _Home(server=server, loop=loop, manager=MCPServerManager([server], strict=True), ready=Future())
        _homes[id(server)] = home
        # Without this task's context variables: a connection outlives the step that made it, and its cancellation.
        _connecting.add(task := loop.create_task(_connect_home(home), context=contextvars.Context()))
        task.add_done_callback(_connecting.discard)
    await asyncio.shield(asyncio.wrap_future(home.ready))
    return home.loop


async def _connect_home(home: _Home) -> None:
    try:
        await home.manager.connect_all()
    except BaseException as error:
        _homes.pop(id(home.server), None)
        home.ready.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        home.ready.set_result(None)


REPLACES = (list_mcp_tools, invoke_mcp_tool)
