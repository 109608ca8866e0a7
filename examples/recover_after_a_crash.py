"""Recover after kill -9: the first process dies inside the second of three tools, the next one finishes the run.

Run it with `python examples/recover_after_a_crash.py`. The bodies print where they run: the recorded payment is not
made again, and the tool that was started but not recorded runs again with the same idempotency key.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid

from agents import Agent, function_tool
from scripted import DecidingModel, Decision

from timestep import current_tool_call, run_agent_workflow

STEPS = ["take_payment", "book_parcel", "send_receipt"]


def tell(what: str) -> None:
    call = current_tool_call()
    print(f"  process {os.getpid()}: {what}, attempt {call.attempt}, key {call.idempotency_key}", flush=True)


@function_tool
async def take_payment() -> str:
    """Take the customer's payment."""
    tell("taking the payment")
    return "paid"


@function_tool
async def book_parcel() -> str:
    """Book a parcel."""
    tell("booking the parcel")
    if current_tool_call().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # the power goes out
    return "booked"


@function_tool
async def send_receipt() -> str:
    """Send the receipt."""
    tell("sending the receipt")
    return "sent"


def decide(said: list[str], results: list[str]) -> Decision:
    if len(results) < len(STEPS):
        return [(STEPS[len(results)], {})]
    return "The order is done: " + ", ".join(results)


agent = Agent(name="order-desk", model=DecidingModel(decide), tools=[take_payment, book_parcel, send_receipt])


async def work(order: str) -> None:
    result = await run_agent_workflow(agent=agent, input_items="Handle the order.", workflow_id=order)
    print(f"{result.status}: {result.output}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(work(sys.argv[1]))
    else:
        order = f"order-{uuid.uuid4().hex[:8]}"
        while code := subprocess.run([sys.executable, __file__, order], check=False).returncode:
            print(f"the process ended with {code}; starting the same program again")
            if code != -signal.SIGKILL:
                sys.exit(1)
