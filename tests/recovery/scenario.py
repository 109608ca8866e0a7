"""One agent run with everything that is a step: the scenario of the kill sweep.

    desk  turn 1   book (tool guardrails), note (sync), stock (MCP), left and right (sub-agents) in parallel
            left   turn 1   weigh, count, and the sub-agents inner_one and inner_two, each with weigh and count
            right  turn 1   weigh, count
          turn 2   handoff to clerk
    clerk turn 3   stamp
          turn 4   handoff back to desk
    desk  turn 5   the answer

The models decide from their input alone, so a process that was killed can be followed by another. The call ids of
the sub-agents are those of their callers, as with providers that count. Every body writes to the side log when
it starts and when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import side_log
from agents import (
    Agent,
    GuardrailFunctionOutput,
    Model,
    ModelResponse,
    ToolGuardrailFunctionOutput,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.mcp import MCPServerStdio
from agents.usage import Usage
from dbos import DBOS
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from timestep import current_tool_call

INPUT = "Look after order 7."
SLOW = {"left": 0.06, "note": 0.03, "weigh": 0.01}
"""Seconds that a body takes. They differ, so that steps end in another order than they begin."""


@contextlib.contextmanager
def logged(kind: str, name: str, key: str | None) -> Iterator[tuple[str, str]]:
    run, step = str(DBOS.workflow_id), DBOS.step_id
    side_log.write("start", run, kind=kind, name=name, step=step, key=key)
    try:
        yield run, f"body {step}"
    except asyncio.CancelledError:
        side_log.write("interrupted", run, kind=kind, name=name, step=step, key=key)
        raise
    side_log.write("end", run, kind=kind, name=name, step=step, key=key)


async def body(kind: str, name: str, key: str | None = None) -> None:
    """What every async body does."""
    with logged(kind, name, key) as (run, point):
        await side_log.stop_at(run, point)
        await asyncio.sleep(SLOW.get(name, 0))


def thread_body(kind: str, name: str, key: str | None = None) -> None:
    """What every sync body does."""
    with logged(kind, name, key) as (run, point):
        side_log.stop_thread_at(run, point)
        time.sleep(SLOW.get(name, 0))


class Mind(Model):
    """A model that decides from its input: how many calls were answered since the user spoke."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        await body("model", self.name)
        items: list[Any] = input if isinstance(input, list) else [{"role": "user", "content": input}]
        last_user = max(number for number, item in enumerate(items) if item.get("role") == "user")
        answered = [item for item in items[last_user:] if item.get("type") == "function_call_output"]
        calls = self._calls(len(answered))
        output: list[Any] = [
            ResponseFunctionToolCall(
                type="function_call",
                id=f"fc_{number}",
                call_id=f"call_{number}",
                name=tool,
                arguments=json.dumps(arguments),
            )
            for number, (tool, arguments) in enumerate(calls, len(answered) + 1)
        ]  # fmt: skip
        if not calls:
            text = f"{self.name} saw {len(items)} items: " + "; ".join(str(item["output"]) for item in answered)
            part = ResponseOutputText(type="output_text", text=text, annotations=[])
            output = [
                ResponseOutputMessage(
                    type="message", id=f"msg_{self.name}", role="assistant", status="completed", content=[part]
                )
            ]
        usage = Usage(
            requests=1, input_tokens=len(items), output_tokens=len(output), total_tokens=len(items) + len(output)
        )
        return ModelResponse(output=output, usage=usage, response_id=f"resp_{self.name}_{len(answered)}")

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError
        yield

    def _calls(self, answered: int) -> list[tuple[str, dict[str, Any]]]:
        if self.name == "desk":
            run = str(DBOS.workflow_id)
            first = [("book", {"order": 7}), ("left", {"input": "left side"}), ("note", {"text": "é"}),
                     ("right", {"input": "right side"}), ("stock", {"run": run})]  # fmt: skip
            return {0: first, 5: [("transfer_to_clerk", {})]}.get(answered, [])
        if self.name == "clerk":
            return [("stamp", {})] if answered == 6 else [("transfer_to_desk", {})]
        if answered:
            return []
        tools: list[tuple[str, dict[str, Any]]] = [("weigh", {}), ("count", {})]
        inner = [("inner_one", {"input": "one"}), ("inner_two", {"input": "two"})] if self.name == "left" else []
        return tools + inner


@tool_input_guardrail
async def check_booking(data: Any) -> ToolGuardrailFunctionOutput:
    await body("tool_input_guardrail", "check_booking")
    return ToolGuardrailFunctionOutput.allow(output_info={"fine": True})


@tool_output_guardrail
async def check_receipt(data: Any) -> ToolGuardrailFunctionOutput:
    await body("tool_output_guardrail", "check_receipt")
    return ToolGuardrailFunctionOutput.allow(output_info={"fine": True})


@function_tool(tool_input_guardrails=[check_booking], tool_output_guardrails=[check_receipt])
async def book(order: int) -> dict[str, Any]:
    """Book an order."""
    return {"booked": order, "key": await _keyed("book")}


@function_tool
def note(text: str) -> str:
    """Write a note, in a thread."""
    key = current_tool_call().idempotency_key
    thread_body("tool", "note", key)
    return f"{text} {key}"


@function_tool
async def weigh() -> str:
    """Weigh."""
    return await _keyed("weigh")


@function_tool
async def count() -> str:
    """Count."""
    return await _keyed("count")


@function_tool
async def stamp() -> str:
    """Stamp."""
    return await _keyed("stamp")


async def _keyed(name: str) -> str:
    key = current_tool_call().idempotency_key
    await body("tool", name, key)
    return key


@input_guardrail
async def is_polite(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
    await body("input_guardrail", "is_polite")
    return GuardrailFunctionOutput(output_info={"polite": True}, tripwire_triggered=False)


@input_guardrail
async def is_short(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
    await body("input_guardrail", "is_short")
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)


@output_guardrail
async def is_honest(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    await body("output_guardrail", "is_honest")
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)


async def handed_over(context: Any) -> None:
    await body("handoff", "handed_over")


def build(model: Callable[[str], Model] = Mind, *, has_stock: bool = True) -> Agent[Any]:
    """Return the agent of the scenario; its MCP server writes to the same side log."""
    variables = (side_log.FOLDER_VARIABLE, side_log.STOPS_VARIABLE, "PYTHONPATH")
    environment = {name: os.environ[name] for name in variables if name in os.environ}
    script = Path(__file__).with_name("stock_server.py")
    stock = MCPServerStdio(
        {"command": sys.executable, "args": [str(script)], "env": environment},
        name="stock", client_session_timeout_seconds=600,
    )  # fmt: skip
    ones = [_worker(name, model) for name in ("inner_one", "inner_two")]
    left = _worker("left", model, *(one.as_tool(one.name, "An inner one.") for one in ones))
    right = _worker("right", model)
    desk: Agent[Any] = Agent(
        name="desk", instructions="Look after orders.", model=model("desk"),
        mcp_servers=[stock] if has_stock else [],
        tools=[book, note, left.as_tool("left", "The left side."), right.as_tool("right", "The right side.")],
        input_guardrails=[is_polite, is_short], output_guardrails=[is_honest],
    )  # fmt: skip
    clerk: Agent[Any] = Agent(name="clerk", model=model("clerk"), tools=[stamp])
    clerk.handoffs.append(handoff(desk, on_handoff=handed_over))
    desk.handoffs.append(handoff(clerk, on_handoff=handed_over))
    return desk


def _worker(name: str, model: Callable[[str], Model], *more: Any) -> Agent[Any]:
    return Agent(name=name, model=model(name), tools=[weigh, count, *more])
