"""A model that needs no key, for the examples: it decides from its input, so it answers the same after a crash.

In your own program leave `model` away, or write `Agent(model="gpt-4.1", ...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agents import set_tracing_disabled
from agents.items import TResponseOutputItem
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

set_tracing_disabled(True)  # there is no key to send traces with

Call = tuple[str, Mapping[str, Any]]
Decision = str | list[Call]
"""What a model decides: its answer, or the tools to call with their arguments."""


class DecidingModel(ScriptedModel):
    """A model whose answer is `decide(said, results)`.

    `said` are the texts of the user so far; `results` are the tool results since the last of them.
    """

    def __init__(self, decide: Callable[[list[str], list[str]], Decision]) -> None:
        super().__init__()
        self._decide = decide

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        """Answer at once."""
        self.enqueue(ModelStep(output=self._answer(kwargs["input"] if "input" in kwargs else args[1])))
        return await super().get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        """Answer with the events of a stream."""
        self.enqueue(ModelStep(output=self._answer(kwargs["input"] if "input" in kwargs else args[1])))
        async for event in super().stream_response(*args, **kwargs):
            yield event

    def _answer(self, given: str | list[Any]) -> list[TResponseOutputItem]:
        said, results = [given] if isinstance(given, str) else [], []
        for item in given if isinstance(given, list) else []:
            if item.get("role") == "user":
                said, results = [*said, str(item["content"])], []
            elif item.get("type") == "function_call_output":
                output = item["output"]
                results.append(output if isinstance(output, str) else output[0]["text"])
        decision = self._decide(said, results)
        if isinstance(decision, str):
            return [assistant_message(decision)]
        return [
            function_call(name, arguments, call_id=f"call_{len(said)}_{len(results) + number}")
            for number, (name, arguments) in enumerate(decision, start=1)
        ]
