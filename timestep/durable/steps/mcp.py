"""MCP in durable runs: the tool list is a step, a call runs inside its `tool_call` step.

Servers are connected when they are first needed, in the process that executes, and stay connected until it stops, or
until their event loop ends. A replayed list needs no server. A server belongs to the event loop that connected it;
calls from another loop are handed over.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from concurrent.futures import Future
from typing import Any

from agents import RunContextWrapper
from agents.mcp import MCPServer, MCPServerManager
from mcp.types import Tool as MCPTool
from pydantic import TypeAdapter

from timestep.durable.journal.scope import active_scope
from timestep.durable.journal.step import Envelope, run_step, value_of
from timestep.durable.seams import agents_sdk, dbos_sdk
from timestep.durable.seams.user_code import contained
from timestep.durable.states.tool_lists import recorded_tool_list
from timestep.event_loops import is_usable, of_running_loop
from timestep.words import MCP_LIST_TOOLS

_TOOLS: TypeAdapter[list[MCPTool]] = TypeAdapter(list[MCPTool])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Home:
    """The loop that a server belongs to; `ready` is done when it is connected, `over` ends the connection."""

    server: MCPServer
    loop: asyncio.AbstractEventLoop
    manager: MCPServerManager
    ready: Future[None]
    over: asyncio.Event


_homes: dict[int, _Home] = {}
"""Servers that this process connects or has connected, by identity."""


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


async def _at_home(server: MCPServer, function: Any) -> Any:
    loop = asyncio.get_running_loop()
    home = await _connect(server, loop)
    if home is loop:
        return await contained(function)

    async def call() -> Any:
        return await contained(function)

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), home))


async def _connect(server: MCPServer, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """Return the loop of a server when it is connected; parallel runs wait for one connection."""
    home = _homes.get(id(server))
    if home is None or not is_usable(home.loop):
        if getattr(server, "session", True) is not None and home is None:  # connected by the program itself
            return loop
        manager = MCPServerManager([server], strict=True)
        home = _Home(server=server, loop=loop, manager=manager, ready=Future(), over=asyncio.Event())
        _homes[id(server)] = home
        # Without this task's context variables: a connection outlives the step that made it, and its cancellation.
        task = loop.create_task(_hold(home), context=contextvars.Context())
        of_running_loop(home, lambda: task, lambda _: _disconnect(home, task))
    await asyncio.shield(asyncio.wrap_future(home.ready))
    return home.loop


async def _hold(home: _Home) -> None:
    """Connect a server, and disconnect it when it is over or this task is cancelled, as the end of its loop does."""
    try:
        await home.manager.connect_all()
    except BaseException as error:
        _forget(home)
        home.ready.set_exception(error)
        if not isinstance(error, Exception):
            raise
        return
    home.ready.set_result(None)
    try:
        await home.over.wait()
    finally:
        _forget(home)
        await home.manager.cleanup_all()


async def _disconnect(home: _Home, task: asyncio.Task[None]) -> None:
    home.over.set()
    await asyncio.wait((task,))


def _forget(home: _Home) -> None:
    if _homes.get(id(home.server)) is home:
        del _homes[id(home.server)]


REPLACES = (list_mcp_tools, invoke_mcp_tool)
