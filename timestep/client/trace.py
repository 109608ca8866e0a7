"""A run as a trace: segments, turns, and their model and tool calls, nested as they were called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, unquote

from timestep.records import Run, Step
from timestep.words import LOCAL_CALLS, MODEL_TURN, STEP_LABELS, STEPS_OF_CALLS, TOOL_CALL

_STEP_NAME = re.compile(r"(?P<path>(?:[^/]+/)*)(?P<kind>[a-z_]+):(?P<turn>\d+):(?P<rest>.*)", re.DOTALL)

HOUSEKEEPING = ("DBOS.",)
"""Beginnings of the names of steps that tell nothing about the run; `timestep runs steps` prints them."""

NOT_RECORDED = "not recorded"
"""Detail of a call that the model asked for and that is not in the journal: it runs, or never did."""


@dataclass(kw_only=True)
class Node:
    """One line of the trace. `step` is what the journal has of it; a turn, a segment and a sub-agent have none."""

    kind: str
    name: str
    step: Step | None = None
    detail: str = ""
    children: list[Node] = field(default_factory=list)

    @property
    def started_at(self) -> datetime | None:
        """When it started, or the first of what is inside it."""
        times = [each.started_at for each in self.steps() if each.started_at is not None]
        return min(times, default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When it finished, or the last of what is inside it."""
        times = [each.finished_at for each in self.steps() if each.finished_at is not None]
        return max(times, default=None)

    @property
    def tokens(self) -> int:
        """Input and output tokens of all model calls inside it."""
        used = [each.usage for each in self.steps() if each.usage is not None]
        return sum(usage.input_tokens + usage.output_tokens for usage in used)

    def steps(self) -> Iterator[Step]:
        """Return the recorded steps inside it."""
        if self.step is not None:
            yield self.step
        for child in self.children:
            yield from child.steps()

    def to_json(self) -> dict[str, Any]:
        """Return it with what is inside it as JSON."""
        step = self.step
        return {
            "kind": self.kind,
            "name": self.name,
            "step_id": step.step_id if step else None,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "attempt": step.attempt if step else None,
            "tokens": self.tokens,
            "error": step.error if step else None,
            "detail": self.detail,
            "children": [child.to_json() for child in self.children],
        }


def trace_of(run: Run, steps: Sequence[Step]) -> list[Node]:
    """Return the segments of a run with their recorded steps."""
    segments: list[Node] = []
    before: set[tuple[int, str, datetime | None]] = set()
    for number in range(1, run.segment + 1):
        here = [step for step in steps if step.segment == number]
        own = [step for step in here if _identity(step) not in before]
        before |= {_identity(step) for step in here}
        detail = run.status if number == run.segment else "ended"
        if copied := len(here) - len(own):
            detail += f", {copied} steps copied from segment {number - 1}"
        segments.append(Node(kind="segment", name=str(number), detail=detail, children=_Segment(own).nodes()))
    return segments


def turns_of(segments: Sequence[Node]) -> int:
    """Return the number of the newest turn of a run."""
    turns = [int(node.name) for segment in segments for node in segment.children if node.kind == "turn"]
    return max(turns, default=0)


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A step and the parts of its name."""

    step: Step
    path: str
    kind: str
    turn: int
    rest: str


class _Segment:
    """The steps of one segment on their way into the tree; each is taken once."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.plain: list[Step] = []
        self.scopes: dict[str, dict[int, list[_Named]]] = {}
        for step in steps:
            found = _STEP_NAME.fullmatch(step.name)
            if found is None:
                self.plain.append(step)
                continue
            named = _Named(
                step=step, path=found["path"], kind=found["kind"], turn=int(found["turn"]), rest=found["rest"]
            )
            self.scopes.setdefault(named.path, {}).setdefault(named.turn, []).append(named)

    def nodes(self) -> list[Node]:
        """Return the segment's turns and the steps outside of turns, in the order in which they started."""
        nodes = self._turns("")
        while self.scopes:  # below a call whose turn is in another segment
            path = min(self.scopes, key=lambda each: (each.count("/"), each))
            nodes.append(Node(kind="agent", name=unquote(path.rstrip("/")), children=self._turns(path)))
        shown = [step for step in self.plain if step.error is not None or not step.name.startswith(HOUSEKEEPING)]
        nodes += [Node(kind="step", name=step.name, step=step, detail=_detail(step)) for step in shown]
        return sorted(nodes, key=_moment)

    def _turns(self, path: str) -> list[Node]:
        turns = self.scopes.pop(path, {})
        nodes = [self._turn(path, number, turns[number]) for number in sorted(turns)]
        runs = [each for each in self.scopes if re.fullmatch(re.escape(path) + r"run\d+/", each)]
        nodes += [
            Node(kind="agent", name=each.removeprefix(path).rstrip("/"), children=self._turns(each)) for each in runs
        ]
        return nodes

    def _turn(self, path: str, number: int, steps: list[_Named]) -> Node:
        turn = Node(kind="turn", name=str(number))
        waiting = list(steps)
        for named in steps:
            if named.kind != MODEL_TURN:
                continue
            waiting.remove(named)
            turn.detail = unquote(named.rest)
            model = named.step.model or turn.detail
            turn.children.append(Node(kind="model", name=model, step=named.step, detail=_detail(named.step)))
            for call, key in _calls(named.step.result):
                turn.children.append(self._call(path, number, call, key, waiting))
        for named in waiting:
            turn.children.append(_node(named))
        below = re.compile(re.escape(f"{path}{number}:") + "[^/]+/")
        for inner in [each for each in self.scopes if below.fullmatch(each)]:
            key = inner.removeprefix(f"{path}{number}:").rstrip("/")
            turn.children.append(Node(kind="agent", name=unquote(key), children=self._turns(inner)))
        return turn

    def _call(self, path: str, turn: int, call: dict[str, Any], key: str, waiting: list[_Named]) -> Node:
        name, arguments = str(call.get("name") or call["type"].removesuffix("_call")), _arguments(call)
        inner = f"{path}{turn}:{key}/"
        if any(each.startswith(inner) for each in self.scopes):
            return Node(kind="agent", name=name, detail=arguments, children=self._turns(inner))
        for named in waiting:
            if named.kind in STEPS_OF_CALLS and named.rest.rpartition(":")[2] == key:
                waiting.remove(named)
                node = _node(named)
                if named.kind == TOOL_CALL and arguments:
                    node.detail = f"{arguments} -> {node.detail}"
                return node
        return Node(kind="call", name=name, detail=f"{arguments} {NOT_RECORDED}".strip())


def _identity(step: Step) -> tuple[int, str, datetime | None]:
    return step.step_id, step.name, step.started_at


def _moment(node: Node) -> float:
    started = node.started_at
    return started.timestamp() if started is not None else float("inf")


def _node(named: _Named) -> Node:
    name = unquote(named.rest.rpartition(":")[0] or named.rest)
    kind = STEP_LABELS.get(named.kind, named.kind)
    return Node(kind=kind, name=name, step=named.step, detail=_detail(named.step))


def _calls(response: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Return the local calls of a recorded model answer, each with its key in step names."""
    output = response.get("output") if isinstance(response, dict) else None
    counts: dict[str, int] = {}
    for item in cast("list[Any]", output) if isinstance(output, list) else []:
        if not isinstance(item, dict) or item.get("type") not in LOCAL_CALLS:
            continue
        call = cast("dict[str, Any]", item)
        call_id = str(call.get("call_id") or call.get("id") or "")
        counts[call_id] = counts.get(call_id, 0) + 1
        yield call, quote(call_id, safe="") + (f"#{counts[call_id]}" if counts[call_id] > 1 else "")


def _arguments(call: dict[str, Any]) -> str:
    text = call.get("arguments") or call.get("input") or ""
    return text if isinstance(text, str) and text != "{}" else ""


def _detail(step: Step) -> str:
    if step.error is not None:
        return f"error {step.error.get('type')}: {step.error.get('message')}"
    if step.kind == MODEL_TURN:
        return _answer(step.result)
    if step.result is None or isinstance(step.result, str):
        return step.result or ""
    return json.dumps(step.result, ensure_ascii=False)


def _answer(response: Any) -> str:
    calls = [str(call.get("name") or call["type"]) for call, _ in _calls(response)]
    if calls:
        return f"asks for {', '.join(calls)}"
    output = response.get("output") if isinstance(response, dict) else None
    for item in cast("list[Any]", output) if isinstance(output, list) else []:
        parts = item.get("content") if isinstance(item, dict) and item.get("type") == "message" else None
        if isinstance(parts, list):
            return " ".join(str(part.get("text") or "") for part in cast("list[dict[str, Any]]", parts))
    return ""
