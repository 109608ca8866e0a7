"""The answer of a run as it comes, and a line a turn."""

from __future__ import annotations

from typing import Any

import pytest

from timestep.cli.runs.follow import AnswerPrinter


def event(kind: str, turn: int, attempt: str = "1.0", path: str = "", **more: Any) -> dict[str, Any]:
    return {"type": kind, "turn": turn, "attempt": attempt, "path": path, **more}


def test_a_newer_attempt_of_a_turn_starts_its_text_over(capsys: pytest.CaptureFixture[str]) -> None:
    printer = AnswerPrinter(prints_text=True)
    for each in (
        event("text_delta", 1, text="Hel", agent="a"),
        event("restarted", 1, attempt="2.0", step="model_turn:1:a"),
        event("text_delta", 1, attempt="2.0", text="Hello", agent="a"),
        event("restarted", 1, attempt="2.0", step="tool_call:1:t:c"),
        event("restarted", 1, path="1:call_1/", attempt="2.0", step="1:call_1/model_turn:1:b"),
        event("restarted", 1, attempt="10.0", step="model_turn:1:a"),
        event("text_delta", 1, attempt="10.0", text="Hello there", agent="a"),
        event("text_delta", 1, path="1:call_1/", text="inner", agent="b"),
    ):
        printer.show(each)
    printer.end()
    printed = capsys.readouterr()
    assert printed.out == "Hel\nHello\nHello there\n"
    assert printed.err == "turn 1 starts over: its answer above was not finished\n" * 2
    assert printer.has_answer


def test_a_turn_of_a_sub_agent_says_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    used = {"input_tokens": 1, "output_tokens": 2}
    printer = AnswerPrinter(prints_text=True)
    printer.show(event("turn_finished", 2, path="3:c/", agent="guide", model=None, seconds=0.25, usage=used))
    printer.show(event("tool_started", 3, tool="t", call_id="c", arguments="{}"))
    printer.show({"type": "run_finished", "status": "succeeded", "segment": 1, "offset": 3})
    assert capsys.readouterr().err == "  turn 2  model -  0.2 s  3 tok  guide, inside turn 3\n"
