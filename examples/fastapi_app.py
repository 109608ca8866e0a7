"""A web application whose agent asks a person: chat, approve, the result, and the events as they come (SSE).

Serve it with `uvicorn --app-dir examples fastapi_app:app`, with `--workers 2` if you like, and ask it:

    curl -X POST "localhost:8000/chat?text=Refund+my+order&run_id=order-7"
    curl -N "localhost:8000/runs/order-7/events"
    curl -X POST "localhost:8000/runs/order-7/approve?by=ann"
    curl "localhost:8000/runs/order-7"

All runs of a worker execute in its event loop, those too that nobody waits for: their tools may use what `lifespan`
makes there. When a worker dies, another one goes on with its runs.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, function_tool
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from scripted import DecidingModel, Decision

import timestep


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    app.state.pool = asyncio.Queue[str]()  # in your own application a pool of a database
    app.state.pool.put_nowait("the only connection")
    timestep.register_agents(agent)
    timestep.ensure_dbos_launched()
    yield
    timestep.cleanup_dbos()


@function_tool(needs_approval=True)
async def refund() -> str:
    """Refund the order."""
    connection = await app.state.pool.get()
    app.state.pool.put_nowait(connection)
    return f"refunded over {connection}"


def decide(said: list[str], results: list[str]) -> Decision:
    return f"Done: {results[0]}." if results else [("refund", {})]


app = FastAPI(lifespan=lifespan)
agent = Agent[None](name="desk", model=os.environ.get("MODEL") or DecidingModel(decide), tools=[refund])


@app.post("/chat")
async def chat(text: str, run_id: str | None = None) -> dict[str, Any]:
    """Run the agent until it has answered, or asks; with the same id once, however often it is asked for."""
    run = await timestep.run_agent_workflow(agent, text, workflow_id=run_id, stream=True)
    return {"run_id": run.run_id, "status": run.status}


@app.post("/runs/{run_id}/approve")
async def approve(run_id: str, by: str) -> dict[str, Any]:
    return {"approved": (await timestep.approve(run_id, by=by)).tool}


@app.get("/runs/{run_id}")
async def result(run_id: str) -> dict[str, Any]:
    run = await timestep.Client().get_run(run_id)
    return {"status": run.status, "output": run.output}


@app.get("/runs/{run_id}/events")
async def events(run_id: str, from_offset: int = 0) -> StreamingResponse:
    lines = (f"data: {json.dumps(event)}\n\n" async for event in timestep.stream_run(run_id, from_offset))
    return StreamingResponse(lines, media_type="text/event-stream")
