"""Fan out and gather: a tool starts one run for each text, in any executors, waits for all, and puts them together.

timestep run "$(cat texts.txt)" --agent editor     one text a line
"""

from __future__ import annotations

from typing import Any

from agents import Agent, function_tool

from timestep import gather_runs, queue_agent_workflow
from workflows.models import default_model

summariser = Agent[Any](
    name="summariser",
    instructions="You say in one sentence what the text is about.",
    model=default_model(lambda said, results: f"About {said}."),
)


@function_tool
async def summarise_all(texts: list[str]) -> str:
    """Summarise many texts at once.

    Args:
        texts: The texts.
    """
    handles = [queue_agent_workflow(summariser, text) for text in texts]
    return "\n".join(result.output for result in await gather_runs(*handles))


def _rehearse(said: str, results: list[str]) -> str | tuple[str, dict[str, Any]]:
    return results[-1] if results else ("summarise_all", {"texts": said.splitlines()})


editor = Agent[Any](
    name="editor",
    instructions="You are given texts, one a line. Summarise them with `summarise_all`, then say what they have in "
    "common.",
    tools=[summarise_all],
    model=default_model(_rehearse),
)
