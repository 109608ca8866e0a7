"""A model that talks in pieces, an agent that speaks with it, and what a reader hears."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from agents import Agent, Model, ModelRetrySettings, ModelSettings, function_tool
from agents.testing import assistant_message, function_call
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseTextDeltaEvent,
)

from timestep import stream_run
from timestep.client.events import Event

TWICE = ModelSettings(retry=ModelRetrySettings(max_retries=2, backoff={"initial_delay": 0.001, "jitter": False}))


class TalkingModel(Model):
    """Speaks word by word and awaits `between`.

    `answers`: texts, lists of calls, an error after `One two`, or None, which breaks off there.
    """

    def __init__(self, answers: Sequence[Any], between: Any = None) -> None:
        self.answers, self.between = list(answers), between

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it only streams")

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = self.answers.pop(0)
        words = answer if isinstance(answer, str) else "" if isinstance(answer, list) else "One two"
        for word in words.split(" ") if words else []:
            yield delta(f"{word} ")
            if self.between is not None:
                await self.between()
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return
        output = [assistant_message(words)] if isinstance(answer, str) else answer
        final = Response.model_construct(id="r", output=output, usage=None)
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=final, sequence_number=0)


def delta(text: str) -> Any:
    return ResponseTextDeltaEvent.model_construct(
        type="response.output_text.delta", delta=text, item_id="i", output_index=0, content_index=0, sequence_number=0,
        logprobs=[],
    )  # fmt: skip


async def read(run_id: str, *args: Any, **kwargs: Any) -> list[Event]:
    return [event async for event in stream_run(run_id, *args, **kwargs)]


def told(events: Sequence[Event]) -> list[str]:
    """Events in short, joined text for joined text."""
    words = {"text_delta": "text", "tool_started": "tool", "tool_finished": "tool", "run_finished": "status"}
    shown = [(event["type"], str(event.get(words.get(event["type"], ""), ""))) for event in events]
    return [
        f"{kind} {''.join(text for _, text in group)}".strip() if kind == "text_delta" else kind_and_text
        for kind, groups in itertools.groupby(shown, key=lambda each: each[0])
        for group in [list(groups)]
        for kind_and_text in ([kind] if kind == "text_delta" else [f"{kind} {text}".strip() for _, text in group])
    ]


def numbers(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """What tells events apart, those that are stored."""
    return [(e["step"], e["segment"], e["attempt"], e["number"]) for e in events if "number" in e]


@function_tool
def look(thing: str) -> str:
    """Look at something."""
    return f"{thing} seen"


@function_tool(needs_approval=True)
def refund(order: int) -> str:
    """Pay an order back."""
    return f"order {order} is paid back"


def clerk(**options: Any) -> Agent[Any]:
    """Looks, asks before it pays, and answers."""
    model = TalkingModel(
        [
            [function_call("look", {"thing": "order"}, call_id="c1")],
            [function_call("refund", {"order": 7}, call_id="c2")],
            "It is paid back",
        ]
    )
    return Agent(name="clerk", model=model, tools=[look, refund], **options)


WHOLE = [
    "turn_finished",
    "tool_started look",
    "tool_finished look",
    "turn_finished",
    "run_interrupted",
    "tool_started refund",
    "tool_finished refund",
    "text_delta It is paid back",
    "turn_finished",
    "run_finished succeeded",
]
