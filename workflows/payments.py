"""A run with approval by two people: one approves the payment as prepared, another one releases it.

timestep run "Pay 20 to Ann" --agent cashier --id pay-1     waits for the first person
timestep approvals approve pay-1 --by ann                   then for the second one
timestep approvals approve pay-1 --by bob
"""

from __future__ import annotations

import json
from typing import Any

from agents import Agent, function_tool

from timestep import current_tool_call, list_approvals
from workflows.models import default_model


@function_tool(needs_approval=True)
async def prepare_payment(to: str, amount: int) -> str:
    """Prepare a payment; a first person approves it.

    Args:
        to: Who gets it.
        amount: Whole euros.
    """
    return "Prepared. Release it with the same values."


@function_tool(needs_approval=True)
async def release_payment(to: str, amount: int) -> str:
    """Release a payment that was prepared; a second person approves it.

    Args:
        to: Who gets it.
        amount: Whole euros.
    """
    call = current_tool_call()
    approved = [
        each
        for each in await list_approvals(call.run_id, is_waiting=False)
        if each.status == "approved" and json.loads(each.arguments) == {"to": to, "amount": amount}
    ]
    prepared = [each.decided_by for each in approved if each.tool == "prepare_payment"]
    released = {each.call_id: each.decided_by for each in approved if each.tool == "release_payment"}
    if len(released) > len(prepared):
        return "Refused: it is not prepared."
    if released[call.call_id] in prepared:
        return "Refused: who has prepared a payment may not release it."
    return f"Paid {amount} to {to}."  # call the bank here, with `call.idempotency_key`


def _rehearse(said: str, results: list[str]) -> str | tuple[str, dict[str, Any]]:
    _, amount, _, to = said.split()  # Pay 20 to Ann
    if len(results) < 2:
        return ("prepare_payment", "release_payment")[len(results)], {"to": to, "amount": int(amount)}
    return results[-1]


cashier = Agent[Any](
    name="cashier",
    instructions="You pay what you are told to: first `prepare_payment`, then `release_payment` with the same values. "
    "Say how it ended.",
    tools=[prepare_payment, release_payment],
    model=default_model(_rehearse),
)
