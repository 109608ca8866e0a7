"""Records that cross rooms: frozen, keyword-only, made of JSON-able values and times.

Times are aware UTC datetimes. Money is integer micro-USD. Tokens are integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

RunStatus = Literal["queued", "running", "interrupted", "succeeded", "failed", "cancelled"]
RUN_STATUSES: tuple[RunStatus, ...] = ("queued", "running", "interrupted", "succeeded", "failed", "cancelled")
FINISHED: frozenset[RunStatus] = frozenset(("succeeded", "failed", "cancelled"))


@dataclass(frozen=True, kw_only=True)
class TokenUsage:
    """Tokens of one or more model calls."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run is started with; the row of `runs` keeps all of it.

    `input_items` is a string or a list of Responses API input items. `run_config` holds only its JSON-able part.
    """

    run_id: str
    agent: str
    input_items: str | list[dict[str, Any]]
    session_id: str | None = None
    context: Any = None
    max_turns: int | None = None
    run_config: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float | None = None
    stream: bool = False
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as stored."""

    run_id: str
    agent: str
    status: RunStatus
    reason: str | None
    segment: int
    session_id: str | None
    input_items: str | list[dict[str, Any]]
    output: Any
    error: dict[str, Any] | None
    queue: str | None
    executor_id: str | None
    usage: TokenUsage
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One recorded step of a run, as shown to people."""

    segment: int
    step_id: int
    name: str
    kind: str
    started_at: datetime | None
    finished_at: datetime | None
    result: Any
    error: dict[str, Any] | None
    attempt: int
    usage: TokenUsage | None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class SettingValue:
    """One setting as `timestep doctor` prints it."""

    name: str
    value: str
    source: str
    problem: str | None = None
    hint: str | None = None
