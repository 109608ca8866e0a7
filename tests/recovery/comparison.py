"""What the kill sweep compares: what a run left in the database, the side log, and the journal at the kill."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timestep.ids import STEP_CLOSE_STREAM, segment_id

if TYPE_CHECKING:
    from drill import Child, Drill

Journal = set[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What an undisturbed run of the scenario left, its recorded steps, and its idempotency keys."""

    left: dict[str, str]
    history: Journal
    keys: dict[tuple[str, int | None], set[str]]


_LEFT = {
    "run": """select agent, status, reason, segment, closed_segment, session_id, session_position,
              output::text, error::text, last_agent, requests, input_tokens, cached_tokens, output_tokens,
              reasoning_tokens, agent_hash
              from timestep.runs where id = %s""",
    "items": """select position, run_id, item::text from timestep.session_items where session_id = 'session-' || %s
                order by 1""",
    "usage": """select step, segment, agent, model, provider, requests, input_tokens, cached_tokens, output_tokens,
                reasoning_tokens from timestep.usage where run_id = %s order by 1""",
    "calls": """select call_key, segment, agent, tool, call_id, arguments, result::text, error::text
                from timestep.tool_calls where run_id = %s order by 1""",
    "history": "select function_id, function_name from dbos.operation_outputs where workflow_uuid = %s order by 1",
    "workflow": "select status from dbos.workflow_status where workflow_uuid = %s",
}  # fmt: skip


STEPS = [
    "model_turn:1:porter",
    "tool_call:1:carry:box_0",
    "model_turn:2:porter",
    "tool_call:2:carry:box_1",
    "model_turn:3:porter",
]
WHOLE: list[object] = [
    [(name,) for name in STEPS],
    [(6, 6)],
    [("model_turn:1:porter", 1), ("model_turn:2:porter", 1), ("model_turn:3:porter", 1)],
    [(3, 30, 3)],
]
"""What a run of the porter leaves: its steps, its session items and how many of them differ, its usage."""


def left_by_porter(drill: Drill, run: str, *, segment: int = 1) -> list[object]:
    """Return the steps, session items and usage that a run of the porter has in the database."""
    items = "select count(*), count(distinct item::text) from timestep.session_items where run_id = %s"
    return [
        [(name,) for _, name in sorted(journal(drill, segment_id(run, segment)))],
        drill.rows(items, run),
        drill.rows("select step, requests from timestep.usage where run_id = %s order by step", run),
        drill.rows("select requests, input_tokens, output_tokens from timestep.runs where id = %s", run),
    ]


def left_by(drill: Drill, run: str) -> dict[str, str]:
    """Return everything that a run left which must not depend on what happened on the way, as text without its id."""
    return {name: json.dumps(drill.rows(query, run), indent=0).replace(run, "RUN") for name, query in _LEFT.items()}


def journal(drill: Drill, run: str) -> Journal:
    """Return the recorded steps of a run."""
    return {(step, name) for step, name in drill.rows(_LEFT["history"], run)}


def points_of(history: Journal) -> list[str]:
    """Return every point at which a run of this history can be stopped, in the order of the step ids."""
    points = ["start before", "start uncommitted", "start after"]
    for step, name in sorted(history):
        body = "body stock" if ":stock:call" in name else f"body {step}"
        inside = [] if name == STEP_CLOSE_STREAM else [body, f"end {step}"]
        points += [f"begin {step}", *inside, f"recorded {step}"]
    return [*points, "close before", "close uncommitted", "close after", "finished"]


def spread(points: list[str], count: int) -> list[str]:
    """Return `count` of the points, evenly spread over all of them, the first and the last among them."""
    if count >= len(points):
        return points
    if count < 2:
        return points[-count:]
    return [points[number * (len(points) - 1) // (count - 1)] for number in range(count)]


def wait_stopped(drill: Drill, child: Child, stops: dict[str, str], *, after: int, may_pass: bool = False) -> None:
    """Wait until each run is at its point; `may_pass`: a step that was recorded before has none, its run may end."""
    there = {"reached", "finished"} if may_pass else {"reached"}
    away = set(stops)

    def are_there(lines: list[dict[str, Any]]) -> bool:
        failed = [line for line in lines[after:] if line["what"] == "failed"]
        assert not failed, failed
        away.difference_update(line["run"] for line in lines[after:] if line["what"] in there)
        return not away

    try:
        drill.wait_lines(are_there, "all runs at their points", child=child)
    except AssertionError as error:
        raise AssertionError(f"not at their points: {sorted(away)} of {sorted(stops)}\n{error}") from None


def repeated(lines: list[dict[str, Any]], run: str, recorded: Journal) -> list[dict[str, Any]]:
    """Return the lines that say that a body of a recorded step began."""
    steps = {step for step, _ in recorded}
    has_stock = any(":stock:call" in name for _, name in recorded)
    return [
        line
        for line in lines
        if line["run"] == run and line["what"] == "start"
        and (line.get("step") in steps or (line["name"] == "stock" and has_stock))
    ]  # fmt: skip


def keys_of(lines: list[dict[str, Any]], run: str) -> dict[tuple[str, int | None], set[str]]:
    """Return the idempotency keys that the tool bodies of a run saw, by tool and step id."""
    started = [line for line in lines if line["run"] == run and line["what"] == "start" and line.get("key")]
    started.sort(key=lambda line: (line["name"], line.get("step") or 0))
    groups = itertools.groupby(started, lambda line: (line["name"], line.get("step")))
    return {group: {line["key"].replace(run, "RUN") for line in found} for group, found in groups}
