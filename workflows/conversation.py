"""A conversation that waits for messages: after each one the agent asks for the next, and the run waits in Postgres.

No process and no memory is held meanwhile, and a new version of the code takes the conversation over.

timestep run "Hello" --agent host --id talk-1      asks, and waits
timestep runs answer talk-1 "I like the sea"       the next message; "bye" ends it
"""

from __future__ import annotations

from typing import Any

from agents import Agent

from timestep import ask_user
from workflows.models import default_model


def _rehearse(said: str, results: list[str]) -> str | tuple[str, dict[str, Any]]:
    if results and results[-1] == "bye":
        return f"Goodbye. We spoke about: {said}; {'; '.join(results[:-1])}."
    return "ask_user", {"question": f"You said: {results[-1] if results else said}. What else?"}


host = Agent[Any](
    name="host",
    instructions="Talk with the person. After each of your answers ask for the next message with `ask_user`, and put "
    "your answer into the question. When the person says bye, say what you spoke about.",
    tools=[ask_user],
    model=default_model(_rehearse),
)
