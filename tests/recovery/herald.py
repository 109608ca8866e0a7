"""An agent that speaks word by word: it looks, then tells what it saw, and can be held in the middle of it."""

from __future__ import annotations

from typing import Any

import side_log
from agents import Agent, Model, function_tool
from agents.testing import assistant_message, function_call
from dbos import DBOS
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent

TEXT = "I saw the sea and it was calm"


class HeraldMind(Model):
    """Asks for a look, then speaks. After four words it stops at the point `words`."""

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it only streams")

    async def stream_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        has_looked = isinstance(input, list) and any(item.get("type") == "function_call_output" for item in input)
        output: list[Any] = [assistant_message(TEXT)] if has_looked else [function_call("look", {}, call_id="c1")]
        for number, word in enumerate(TEXT.split(" ") if has_looked else []):
            if number == 4:
                await side_log.stop_at(DBOS.workflow_id or "", "words")
            yield ResponseTextDeltaEvent.model_construct(
                type="response.output_text.delta", delta=f"{' ' if number else ''}{word}", item_id="i", output_index=0,
                content_index=0, sequence_number=number, logprobs=[],
            )  # fmt: skip
        final = Response.model_construct(id="r", output=output, usage=None)
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=final, sequence_number=99)


@function_tool
async def look() -> str:
    """Look at the sea."""
    return "calm"


def build() -> Agent[Any]:
    """Return the agent."""
    return Agent(name="herald", model=HeraldMind(), tools=[look])
