"""The trace of a run: segments, turns and calls as a tree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from timestep.client.trace import Node, trace_of, turns_of
from timestep.records import Run, Step, TokenUsage

START = datetime(2026, 1, 2, tzinfo=UTC)


def step(
    step_id: int, name: str, *, result: Any = None, segment: int = 1, seconds: float = 1, error: Any = None
) -> Step:
    kind = name.rpartition("/")[2].partition(":")[0]
    started = START + timedelta(seconds=step_id)
    return Step(
        segment=segment, step_id=step_id, name=name, kind=kind, started_at=started,
        finished_at=started + timedelta(seconds=seconds), result=result, error=error, attempt=1,
        usage=TokenUsage(requests=1, input_tokens=10, output_tokens=1) if kind == "model_turn" else None,
        model="m" if kind == "model_turn" else None,
    )  # fmt: skip


def asks(*calls: tuple[str, str]) -> dict[str, Any]:
    return {"output": [{"type": "function_call", "name": name, "call_id": call_id} for name, call_id in calls]}


def run_of(*, segment: int = 1) -> Run:
    return Run(
        run_id="r", agent="a", status="running", reason=None, segment=segment, session_id=None, input_items="hi",
        output=None, error=None, queue=None, executor_id=None, usage=TokenUsage(), created_at=START, started_at=START,
        finished_at=None,
    )  # fmt: skip


def outline(nodes: list[Node], depth: int = 0) -> list[str]:
    return [
        line
        for node in nodes
        for line in (f"{'  ' * depth}{node.kind} {node.name}", *outline(node.children, depth + 1))
    ]


def test_calls_stand_in_the_order_of_the_model_whatever_finished_first() -> None:
    steps = [
        step(1, "model_turn:1:a%2Fb", result=asks(("t", "c/1"), ("sub", "c 2"), ("t", "c/1"), ("later", "c3"))),
        step(3, "tool_call:1:t:c%2F1#2", result="second"),
        step(2, "tool_call:1:t:c%2F1", error={"type": "ValueError", "message": "no"}),
        step(4, "1:c%202/model_turn:1:inner", result=asks(("u", "x"))),
        step(5, "1:c%202/tool_call:1:u:x", result={"a": 1}),
        step(6, "input_guardrail:1:check"),
    ]
    trace = trace_of(run_of(), steps)
    assert outline(trace) == [
        "segment 1",
        "  turn 1",
        "    model m",
        "    tool t",
        "    agent sub",
        "      turn 1",
        "        model m",
        "        tool u",
        "    tool t",
        "    call later",
        "    input_guardrail check",
    ]
    calls = trace[0].children[0].children
    assert [call.detail for call in calls if call.kind == "tool"] == ["error ValueError: no", "second"]
    assert calls[-2].detail == "not recorded"
    assert (trace[0].tokens, turns_of(trace)) == (22, 1)
    assert trace[0].finished_at == START + timedelta(seconds=7)


def test_a_segment_shows_only_its_own_steps() -> None:
    copied = [step(1, "model_turn:1:a", result=asks(("t", "c"))), step(2, "tool_call:1:t:c", result="x")]
    again = [step(1, "model_turn:1:a", segment=2, result=asks(("t", "c"))), step(2, "tool_call:1:t:c", segment=2)]
    new = [
        step(3, "model_turn:2:a", segment=2),
        step(9, "1:gone/tool_call:1:u:x", segment=2),
        step(10, "session_write", segment=2),
    ]
    trace = trace_of(run_of(segment=2), [*copied, *again, *new])
    assert outline(trace)[4:] == [
        "segment 2",
        "  turn 2",
        "    model m",
        "  agent 1:gone",
        "    turn 1",
        "      tool u",
        "  step session_write",
    ]
    assert [node.detail for node in trace] == ["ended", "running, 2 steps copied from segment 1"]


def test_housekeeping_is_not_shown_unless_it_failed() -> None:
    steps = [step(1, "DBOS.closeStream"), step(2, "DBOS.sleep", error={"type": "E", "message": "x"})]
    assert outline(trace_of(run_of(), steps)) == ["segment 1", "  step DBOS.sleep"]
