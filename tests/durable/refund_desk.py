"""An agent whose refunds need a person, for the tests of stored states."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, Model, ModelResponse, function_tool
from agents.testing import assistant_message, function_call
from agents.usage import Usage

from timestep import (
    RunStateStore,
    run_agent,
)


class Turns(Model):
    """A model that says what it is told, turn after turn; each turn may wait for an event, or raise."""

    def __init__(self, *turns: Any, wait: asyncio.Event | None = None) -> None:
        self.turns, self.count, self.wait = turns, 0, wait

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        turn = self.turns[min(self.count, len(self.turns) - 1)]
        self.count += 1
        if self.wait is not None:
            await self.wait.wait()
        if isinstance(turn, Exception):
            raise turn
        output = [assistant_message(turn) if isinstance(turn, str) else turn]
        return ModelResponse(output=output, usage=Usage(requests=1), response_id=None)

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        from agents.testing import ModelStep, ScriptedModel

        response = await self.get_response()
        async for event in ScriptedModel([ModelStep(output=response.output)]).stream_response(*args, **kwargs):
            yield event


class Desk:
    """An agent whose refunds need a person, and what it did. `turns` follow the call that waits."""

    def __init__(self, *turns: Any, name: str = "desk", tools: bool = True, **options: Any) -> None:
        self.refunded: list[str] = []

        @function_tool(needs_approval=True)
        async def refund(order: str) -> str:
            """Refund an order."""
            self.refunded.append(order)
            return "refunded"

        self.model = Turns(*(turns or ("done",)))
        self.agent: Agent[Any] = Agent(name=name, model=self.model, tools=[refund] if tools else [], **options)

    async def interrupted(self, *, session_id: str | None = None, context: Any = None) -> RunStateStore:
        """Run to the interruption and store the state."""
        turns, self.model.turns = self.model.turns, (function_call("refund", {"order": "7"}, call_id="c1"),)
        result = await run_agent(self.agent, "Refund", context=context)
        self.model.turns, self.model.count = turns, 0
        store = RunStateStore(self.agent, session_id)
        await store.save(result.to_state())
        return store


async def approved(store: RunStateStore, **options: Any) -> Any:
    state = await store.load(**options)
    for item in state.get_interruptions():
        state.approve(item)
    return state


def newest(engine: Any, store: RunStateStore) -> dict[str, Any]:
    rows = engine.query("select * from timestep.run_states where session_id = %s order by id desc", store.session_id)
    return rows[0]
