"""What a run waits for, in the words of people: on one line, and harmless to a terminal."""

from __future__ import annotations

from typing import Any

from timestep.records import Approval
from timestep.words import kind_of_approval

SHORT_ID = 8
"""Characters of an approval id that are printed in tables and hints; any prefix that no other one has is taken."""

LONGEST_SUMMARY = 200

_UUID_LENGTH = 36


def short_id(approval: Approval) -> str:
    """Return the beginning of an approval id; one that the engine has not made stays whole."""
    return approval.id[:SHORT_ID] if len(approval.id) == _UUID_LENGTH else approval.id


def kind_text(approval: Approval) -> str:
    """Return the kind of an approval as a person says it."""
    return approval.kind.replace("_", " ")


def call_text(approval: Approval) -> str:
    """Return the call of an approval on one line, such as `refund({"order": 7})`."""
    return _one_line(f"{approval.tool}({approval.arguments})")


def wish(approval: Approval) -> str:
    """Return what a run waits for, such as `an approval of refund({"order": 7})`."""
    kind = kind_of_approval(approval.kind)
    return kind.wish.format(shown=call_text(approval) if kind.about == "call" else summary(approval))


def summary(approval: Approval) -> str:
    """Return what is asked on one line: the arguments, the question, or the limit."""
    match kind_of_approval(approval.kind).about:
        case "question":
            return question_text(approval)
        case "limits":
            return _limit_text(approval.details or {})
        case "call":
            return _one_line(approval.arguments)


def question_text(approval: Approval) -> str:
    """Return a question with its choices on one line."""
    details: dict[str, Any] = approval.details or {}
    choices = details.get("choices")
    shown = f" ({', '.join(map(str, choices))})" if choices else ""
    return _one_line(f"{details.get('question', '')}{shown}")


def clean(text: str) -> str:
    """Return `text` on one line, with control characters escaped, so that it cannot steer a terminal."""
    line = " ".join(text.split())
    return "".join(
        char if char.isprintable() or char == "\u200d" else char.encode("unicode_escape").decode() for char in line
    )


def _limit_text(details: dict[str, Any]) -> str:
    return f"{details.get('limit')}={details.get('value')}, with {details.get('used')} used"


def _one_line(text: str) -> str:
    line = clean(text)
    return line if len(line) <= LONGEST_SUMMARY else line[: LONGEST_SUMMARY - 1] + "…"
