"""The tool `ask_user`: the model asks the person, the run waits, the answer is the tool's result."""

from __future__ import annotations

import json
from typing import Any, cast

from agents import FunctionTool, function_tool

NAME = "ask_user"


@function_tool(name_override=NAME, needs_approval=True, strict_mode=False)
async def ask_user(question: str, choices: list[str] | None = None) -> str:
    """Ask the person a question and wait for the answer. Use it when only the person can know or decide.

    Args:
        question: What to ask, as the person will read it.
        choices: The possible answers, when there are few; leave it out for a free answer.
    """
    return "The person gave no answer."  # approved, not answered


def question_of(tool: Any, arguments: str) -> dict[str, Any] | None:
    """Return what an interrupted call of `ask_user` asks, `{"question", "choices"}`; None for other tools."""
    if not isinstance(tool, FunctionTool) or tool is not ask_user:
        return None
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        given = {}
    fields = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    choices: Any = fields.get("choices")
    return {
        "question": str(fields.get("question", "")),
        "choices": [str(choice) for choice in choices] if isinstance(choices, list) and choices else None,
    }
