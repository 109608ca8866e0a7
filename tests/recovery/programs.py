"""What the children of these tests do: executors of the scenario and of small agents."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import threading
import uuid
from collections.abc import Sequence
from typing import Any

import herald
import ollama_mind
import porter
import scenario
import side_log
import spreader
import stops
import till
import timekeeper
import walker
from agents import Agent, OpenAIChatCompletionsModel, RunConfig
from dbos import DBOS
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from timestep import (
    ApprovalAlreadyDecided,
    Client,
    RunStateStore,
    Session,
    cleanup_dbos,
    create_scheduled_agent_workflow,
    ensure_dbos_launched,
    queue_agent_workflow,
    register_agents,
    run_agent_workflow,
    set_default_model_provider,
)
from timestep.durable.journal.scope import Scope
from timestep.durable.process.gate import gate
from timestep.durable.steps import rate_limits
from timestep.runtime import drain
from timestep.runtime import executor as runtime_executor

GREETING = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello, what is it?"}]


async def launch() -> None:
    """Launch and stop."""
    await ensure_dbos_launched()
    await cleanup_dbos()


async def sweep(*, runs: Sequence[str], has_reservation: bool = True, ollama_url: str | None = None) -> None:
    """Start the runs of the scenario, or wait for those that were started before, and tell how each ended.

    With the address of an Ollama its models are those, streamed, and there is no MCP server.
    """
    stops.install()
    if not has_reservation:
        _draw_ids_late()
    agent = scenario.build(ollama_mind.minds_at(ollama_url), has_stock=False) if ollama_url else scenario.build()
    register_agents(agent)
    await ensure_dbos_launched()
    await asyncio.gather(*(_one(run, stream=bool(ollama_url)) for run in runs))
    await cleanup_dbos()  # a forked child runs no exit handlers


async def _one(run: str, *, stream: bool) -> None:
    session = Session(f"session-{run}")
    if not await session.get_items():
        await session.add_items(GREETING)
    try:
        result = await run_agent_workflow("desk", scenario.INPUT, session, stream=stream, workflow_id=run)
    except Exception as error:
        side_log.write("failed", run, error=f"{type(error).__name__}: {error}")
    else:
        side_log.write("finished", run, output=result.output, status=result.status)
    while (await DBOS.get_workflow_status_async(run)).status in ("PENDING", "ENQUEUED"):  # the result may come before
        await asyncio.sleep(side_log.POLL_SECONDS)
    await side_log.stop_at(run, "finished")


def _draw_ids_late() -> None:
    """Draw each step id when its call runs, as a program without reservations does."""

    def plan(self: Scope, calls: Any, tools: Any) -> None:
        del calls, tools
        self.slots, self.taken = {}, []

    Scope.plan = plan  # type: ignore[method-assign]


async def executor(
    *,
    runs: Sequence[str] = (),
    queued: Sequence[str] = (),
    tool: str = "carry",
    has_agent: bool = True,
    takes_runs: bool = True,
    is_far: bool = False,
    namespace: str = "",
    code: str = "",
    **options: Any,
) -> None:
    """Start the runs of the porter, and execute what there is until killed.

    `is_far`: as if on a machine of its own. `namespace`: in this network namespace.
    """
    if namespace:
        _enter(namespace)
    stops.install()
    if is_far:
        _move_away()
    if has_agent:
        register_agents(porter.build(code))
    await ensure_dbos_launched(queues=None if takes_runs else ())
    side_log.write("launched", "")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _leave)
    for run in queued:
        queue_agent_workflow("porter", tool, session_id=f"session-{run}", workflow_id=run, **options)
    await asyncio.gather(*(_carry(run, tool, **options) for run in runs))
    while not (side_log.folder() / "end").exists():
        await asyncio.sleep(side_log.POLL_SECONDS)
    await cleanup_dbos()


async def configured_executor(
    *, runs: Sequence[str] = (), is_registered: bool = False, is_default: bool = False
) -> None:
    """Start runs of the porter with a provider of their own, or only have the agent; execute until killed.

    `is_registered`: the provider is registered with the agent. `is_default`: it is that of the process.
    """
    stops.install()
    agent = porter.build_named()
    register_agents(agent, run_config=RunConfig(model_provider=porter.Porters()) if is_registered else None)
    set_default_model_provider(porter.Porters() if is_default else None)
    await ensure_dbos_launched()
    side_log.write("launched", "")

    async def carry(run: str) -> None:
        result = await run_agent_workflow(
            agent,
            "carry",
            session_id=f"session-{run}",
            workflow_id=run,
            run_config=RunConfig(model_provider=porter.Porters()),
            on_interruption="wait",
        )
        side_log.write("finished", run, output=result.output, status=result.status)

    await asyncio.gather(*(carry(run) for run in runs))
    while not (side_log.folder() / "end").exists():
        await asyncio.sleep(side_log.POLL_SECONDS)
    await cleanup_dbos()


async def chaos_executor(*, is_far: bool) -> None:
    """Execute runs of the porter and of the till until ended, killed or fenced; each body takes a while."""
    stops.install()
    if is_far:
        _move_away()
    scenario.SLOW.update(dict.fromkeys(("porter", "till", "carry", "look", "pay 1", "file"), 0.15))
    register_agents(porter.build(), till.build())
    await ensure_dbos_launched()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _leave)
    while not gate.is_fenced:
        await asyncio.sleep(side_log.POLL_SECONDS)
    await cleanup_dbos()


def _enter(namespace: str) -> None:
    """Move this thread, and those that it starts, into a network namespace."""
    with open(f"/var/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")


def _move_away() -> None:
    """Let this process be as if on a machine of its own."""
    space = uuid.uuid4().hex
    runtime_executor.process_space = lambda: space


def _leave() -> None:
    """Drain and end, as a worker does at SIGTERM."""

    def leave() -> None:
        has_finished = drain()
        cleanup_dbos()
        side_log.write("left", "", has_finished=has_finished)
        os._exit(0)

    threading.Thread(target=leave).start()


async def speaker(*, queued: Sequence[str] = ()) -> None:
    """Queue streamed runs of the herald, and execute what there is until killed."""
    stops.install()
    register_agents(herald.build())
    await ensure_dbos_launched()
    for run in queued:
        queue_agent_workflow("herald", "Go", stream=True, workflow_id=run)
    while not (side_log.folder() / "end").exists():
        await asyncio.sleep(side_log.POLL_SECONDS)
    await cleanup_dbos()


async def caller(*, runs: Sequence[str], url: str) -> None:
    """Ask a model over HTTP, a call a run, what the run's id says; then what a file names, and execute until killed."""
    rate_limits.LONGEST_SLEEP_SECONDS = 0.1  # what a test lifts is seen soon
    client = AsyncOpenAI(base_url=url, api_key="none", http_client=DefaultAsyncHttpxClient(verify=False))
    register_agents(Agent(name="caller", model=OpenAIChatCompletionsModel("stamped", client)))
    await ensure_dbos_launched()
    side_log.write("launched", "")
    calls = [asyncio.ensure_future(run_agent_workflow("caller", run, workflow_id=run)) for run in runs]
    named, is_paused = side_log.folder() / f"call_{os.getpid()}", False
    while not (side_log.folder() / "end").exists():
        if rate_limits.paused_keys() and not is_paused:
            is_paused = True
            side_log.write("paused", "")
        if named.exists():
            run = named.read_text()
            named.unlink()
            calls.append(asyncio.ensure_future(run_agent_workflow("caller", run, workflow_id=run)))
        await asyncio.sleep(side_log.POLL_SECONDS)
    side_log.write("drained", "", is_done=await asyncio.to_thread(drain))


async def timekeeper_executor() -> None:
    """Keep the schedule of the timekeeper until killed."""
    agent = timekeeper.build()
    create_scheduled_agent_workflow("* * * * * *", agent, "Chime.", name=timekeeper.SCHEDULE)
    await ensure_dbos_launched()
    side_log.write("launched", "")
    while not (side_log.folder() / "end").exists():
        await asyncio.sleep(side_log.POLL_SECONDS)
    await cleanup_dbos()


async def spread_executor(*, runs: Sequence[str] = ()) -> None:
    """Queue runs that start runs, and execute what there is until killed."""
    register_agents(*spreader.build())
    await ensure_dbos_launched()
    for run in runs:
        queue_agent_workflow("spreader", "Go.", workflow_id=run)
    while not (side_log.folder() / "end").exists():
        await asyncio.sleep(side_log.POLL_SECONDS)
    await cleanup_dbos()


async def _carry(run: str, tool: str, **options: Any) -> None:
    try:
        result = await run_agent_workflow("porter", tool, session_id=f"session-{run}", workflow_id=run, **options)
    except Exception as error:
        side_log.write("failed", run, error=f"{type(error).__name__}: {error}")
    else:
        side_log.write("finished", run, output=result.output, status=result.status)


async def till_executor(*, runs: Sequence[str] = (), resumed: Sequence[str] = ()) -> None:
    """Start the runs of the till, go on from the states of others, and execute what there is until killed."""
    stops.install()
    agent = till.build()
    register_agents(agent)
    await ensure_dbos_launched()
    side_log.write("launched", "")
    await asyncio.gather(*(_pay(run) for run in runs), *(_resume(agent, run) for run in resumed))
    while not (side_log.folder() / "end").exists():
        await asyncio.sleep(side_log.POLL_SECONDS)
    await cleanup_dbos()


async def _pay(run: str) -> None:
    result = await run_agent_workflow("till", "Pay.", Session(f"session-{run}"), workflow_id=run)
    side_log.write("finished", run, output=result.output, status=result.status)


async def _resume(agent: Agent[Any], run: str) -> None:
    """Do what a program does that was written for a person at its terminal: load, decide, run."""
    store = RunStateStore(agent, session_id=f"session-{run}")
    state = await store.load()
    for item in state.get_interruptions():
        if json.loads(item.arguments or "")["amount"] == 1:
            state.approve(item)
        else:
            state.reject(item, rejection_message="Too much")
    await side_log.stop_at(run, "resume before")
    result = await run_agent_workflow(agent, state)
    side_log.write("finished", run, output=result.output, status=result.status)


async def decider(*, runs: Sequence[str]) -> None:
    """Approve the payments of 1 and reject those of 2; what is decided already stays."""
    till.watch_decisions()
    async with Client() as client:
        await asyncio.gather(*(_decide(client, run) for run in runs))


async def _decide(client: Client, run: str) -> None:
    with contextlib.suppress(ApprovalAlreadyDecided):
        await client.approve(run, "pay_1", by="alice")
    with contextlib.suppress(ApprovalAlreadyDecided):
        await client.reject(run, "pay_2", by="alice", reason="Too much")
    await side_log.stop_at(run, "decide after")
    side_log.write("decided", run)


async def walker_executor(**arguments: Any) -> None:
    """Execute the runs of the walker until killed."""
    await walker.executor(**arguments)


async def walker_queue(**arguments: Any) -> None:
    """Queue runs of the walker."""
    await walker.queue(**arguments)
