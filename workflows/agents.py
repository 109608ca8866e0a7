"""The agents. Each is found by its name: `timestep run "hello" --agent assistant`."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from agents import Agent, function_tool

from workflows.models import default_model


@function_tool
async def now(timezone: str) -> str:
    """Return the date and time in a time zone.

    Args:
        timezone: IANA name, such as Europe/Berlin.
    """
    return datetime.now(ZoneInfo(timezone)).strftime("%A, %d %B %Y, %H:%M")


assistant = Agent[Any](
    name="assistant",
    instructions="You answer briefly and to the point. Ask `now` when a question depends on date or time.",
    tools=[now],
    model=default_model(),
)

reporter = Agent[Any](
    name="reporter",
    instructions="You write a report of three sentences about the subject that you are given.",
    tools=[assistant.as_tool("ask_assistant", "Ask for a fact that the report needs.")],
    model=default_model(),
)
