"""A model that says what it is told, turn after turn."""

from __future__ import annotations

from typing import Any

from agents import Model, ModelResponse
from agents.testing import assistant_message
from agents.usage import Usage


class Turns(Model):
    """Says its turns in order and its last one again; keeps the tool outputs that it was shown."""

    def __init__(self, *turns: Any) -> None:
        self.turns, self.count = turns, 0
        self.seen: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        turn = self.turns[min(self.count, len(self.turns) - 1)]
        self.count += 1
        self.seen = [item["output"] for item in input if isinstance(item, dict) and "output" in item]
        output = turn if isinstance(turn, list) else [assistant_message(turn) if isinstance(turn, str) else turn]
        usage = Usage(requests=1, input_tokens=1, output_tokens=1, total_tokens=2)
        return ModelResponse(output=output, usage=usage, response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError
