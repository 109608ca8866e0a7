"""A shop whose payments need approval, and agents that pay inside others."""

from __future__ import annotations

from typing import Any

from agents import Agent, function_tool
from agents.testing import function_call
from turns import Turns


class Shop:
    """Tools that note what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []

        @function_tool(needs_approval=True)
        async def pay(amount: int) -> str:
            self.done.append(f"pay {amount}")
            return f"paid {amount}"

        @function_tool
        async def look(thing: str) -> str:
            self.done.append(f"look {thing}")
            return f"saw {thing}"

        self.pay, self.look = pay, look

    def agent(self, *turns: Any, name: str = "shop", **options: Any) -> Agent[Any]:
        return Agent(name=name, model=Turns(*turns), tools=[self.pay, self.look], **options)


def pay(amount: int, call_id: str) -> Any:
    return function_call("pay", {"amount": amount}, call_id=call_id)


def look(thing: str, call_id: str) -> Any:
    return function_call("look", {"thing": thing}, call_id=call_id)


def nested(shop: Shop, *, depth: int, amount: int, name: str) -> Agent[Any]:
    agent = shop.agent(pay(amount, f"{name}-pay"), f"{name} paid", name=f"{name}0")
    for level in range(1, depth + 1):
        tool = agent.as_tool(tool_name=f"{name}{level}_tool", tool_description="Pays")
        call = function_call(tool.name, {"input": "go"}, call_id=f"{name}-{level}")
        agent = Agent(name=f"{name}{level}", model=Turns(call, f"{name}{level} done"), tools=[tool])
    return agent
