"""Records that cross rooms: frozen, keyword-only, made of JSON-able values and times.

Times are aware UTC datetimes. Money is integer micro-USD. Tokens are integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from timestep.errors import InvalidInputError
from timestep.words import (
    APPROVAL,
    FINISHED,  # noqa: F401 # pyright: ignore[reportUnusedImport] - programs take it from here
    RUN_STATUSES,  # noqa: F401 # pyright: ignore[reportUnusedImport] - as above
    ApprovalKind,
    ApprovalStatus,
    RunStatus,
)


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """A server of models that the settings name, known by the prefix of its models' names.

    `api_key_env` is the environment variable with its key; the key itself is in no setting.
    """

    base_url: str
    api_key_env: str | None = None
    use_responses: bool = False
    kind: Literal["openai", "ollama"] = "openai"


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """What the model calls of all executors together may use in any 60 seconds; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


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

    `input_items` is a string or a list of Responses API input items. `run_config` holds only its JSON-able part;
    `code` names its fields that are code, which an executor must have registered with the agent.
    `resumes_snapshot` is the id of the stored snapshot that the run goes on from, and that nobody else may then.
    `parent_run_id` is the run, or the workflow of a program's own, that started it. A run with `conversation_id`,
    `previous_response_id` or `auto_previous_response_id` has its history at the model's provider, and no session.
    """

    run_id: str
    agent: str
    input_items: str | list[dict[str, Any]]
    session_id: str | None = None
    context: Any = None
    max_turns: int | None = None
    run_config: Mapping[str, Any] = field(default_factory=dict)
    code: Sequence[str] = ()
    timeout_seconds: float | None = None
    stream: bool = False
    model: str | None = None
    max_turns_per_segment: int | None = None
    limits: RunLimits | None = None
    resumes_snapshot: int | None = None
    parent_run_id: str | None = None
    conversation_id: str | None = None
    previous_response_id: str | None = None
    auto_previous_response_id: bool = False


OneAtATime = Literal["session"]


@dataclass(frozen=True, kw_only=True)
class QueuedRun:
    """A run for a queue: its request, and how the queue takes it.

    `application` is that whose executors take it. With `one_at_a_time="session"` it waits for the queued runs of its
    session that came before it. `priority` is 1 for the highest; a run without one comes before all that have one.
    """

    request: RunRequest
    input_digest: str
    queue: str
    application: str
    one_at_a_time: OneAtATime | None = "session"
    priority: int | None = None
    deduplication_id: str | None = None
    partition_key: str | None = None
    start_after: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """What a queue lets through; None is no limit.

    `global_concurrency` counts the runs of all executors together, `worker_concurrency` those of one, and
    `partition_concurrency` those of one partition: such a queue is partitioned, and each run needs a partition. At
    most `rate_limit` runs start in any `rate_period_seconds`. Each executor looks for work every
    `polling_interval_seconds`, with about ten statements.
    """

    global_concurrency: int | None = None
    worker_concurrency: int | None = None
    partition_concurrency: int | None = None
    rate_limit: int | None = None
    rate_period_seconds: float = 60.0
    polling_interval_seconds: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no limit.

        Raises:
            InvalidInputError: a number is out of its range, or a part may do more than the whole.
        """
        for name in ("global_concurrency", "worker_concurrency", "partition_concurrency", "rate_limit"):
            value: object = getattr(self, name)
            if value is not None and not is_whole_from_one(value):
                raise InvalidInputError(f"{name} is a whole number from 1 to {LARGEST_NUMBER}, not {value!r}.")
        for name in ("rate_period_seconds", "polling_interval_seconds"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.01 <= value <= 31_536_000:
                raise InvalidInputError(f"{name} is a number of seconds from 0.01 to 31536000, not {value!r}.")
        whole = self.global_concurrency
        for name in ("worker_concurrency", "partition_concurrency"):
            part = getattr(self, name)
            if whole is not None and part is not None and part > whole:
                raise InvalidInputError(
                    f"{name}={part} is more than global_concurrency={whole}.", hint=f"Write {name}={whole} or less."
                )


LARGEST_NUMBER = 2**31 - 1
"""Largest priority and limit of a queue: Postgres stores them in four bytes."""


def is_whole_from_one(value: object) -> bool:
    """Return whether a value is a whole number from 1 to `LARGEST_NUMBER`, which a truth value is not."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_NUMBER


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue and what is in it now.

    `waiting` counts the runs that wait to start, those included that wait for their session; next segments of runs
    that were interrupted wait in `timestep_segments`, whatever queue the run had. A paused queue starts nothing.
    """

    name: str
    limits: QueueLimits
    is_paused: bool = False
    waiting: int = 0
    waiting_for_session: int = 0
    running: int = 0
    oldest_waiting_at: datetime | None = None


OnLimit = Literal["interrupt", "fail"]


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """What a run may use, counted over all of its segments, sub-agents and crashes; None is no limit.

    Before each model call the finished work is counted; at a limit no model call starts, and what is in flight
    finishes. The run is then interrupted, for a person to raise the limit or to end the run, or fails, as `on_limit`
    says. Turns are model calls of all agents of the run; tokens are input and output tokens; seconds are those of
    execution. A cost that cannot be known, for want of a price, counts as reached, until a person raises the limit.
    """

    max_turns: int | None = None
    max_tool_calls: int | None = None
    max_tokens: int | None = None
    max_cost_micro_usd: int | None = None
    max_seconds: float | None = None
    on_limit: OnLimit = "interrupt"

    def __post_init__(self) -> None:
        """Refuse what is no limit.

        Raises:
            InvalidInputError: a limit is not a number above zero, or `on_limit` is another word.
        """
        for name in LIMITS:
            value: object = getattr(self, name)
            kinds = (int, float) if name == "max_seconds" else int
            if value is None:
                continue
            if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < math.inf:
                raise InvalidInputError(f"{name} is a number above 0, not {value!r}.")
        if self.on_limit not in ("interrupt", "fail"):
            raise InvalidInputError(f"on_limit is 'interrupt' or 'fail', not {self.on_limit!r}.")


LIMITS = ("max_turns", "max_tool_calls", "max_tokens", "max_cost_micro_usd", "max_seconds")

OnExpiry = Literal["reject", "fail"]


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One thing that a run waits for, or waited for: who decided, when, about which arguments.

    `arguments` are as the model wrote them, except NUL and lone surrogates: they become JSON escapes.
    `arguments_digest` is the SHA-256 of the arguments. `details` by kind: question {"question", "choices"};
    outcome_unknown {"attempt", "started_at"}; limit {"limit", "value", "used", "message"}. `answer` by kind: the text;
    {"outcome": "happened", "result"} or {"outcome": "did_not_happen"}; {"limits": {...}}.
    """

    id: str
    run_id: str
    segment: int
    place: int = 0
    kind: ApprovalKind = APPROVAL
    session_id: str | None
    agent: str
    tool: str
    call_id: str
    call_key: str | None = None
    arguments: str
    arguments_digest: str
    details: Any = None
    status: ApprovalStatus = "open"
    is_sticky: bool = False
    decided_by: str | None = None
    reason: str | None = None
    answer: Any = None
    on_expiry: OnExpiry | None = None
    asked_at: datetime | None = None
    expires_at: datetime | None = None
    decided_at: datetime | None = None
    consumed_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as stored. `waits_for` is the rate limit that a model call of a running run waits for now."""

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
    waits_for: str | None = None
    waits_since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Executor:
    """A process that executes runs, as it is seen from outside.

    `is_alive`: it holds its lock in Postgres; the row may outlive it. `agents` are those whose queued runs it takes,
    `queues` those that it takes them from, None for all of them. `running` is how many runs it executes, `run_ids` are
    those that began first, at most 100. `last_seen_at` is now when it is alive, else the time when its lock was first
    seen free, None when it gave it up itself or nobody has looked.
    """

    executor_id: str
    application_version: str
    host: str
    pid: int
    is_alive: bool
    agents: Sequence[str]
    queues: Sequence[str] | None
    running: int
    run_ids: Sequence[str]
    started_at: datetime
    last_seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """A conversation as stored: how many items it has, and the runs in it.

    `run_ids` are the newest of its `runs`, at most 100; `unfinished_run_ids` those of all of them that are queued,
    running or interrupted, the oldest first. The times are those of the session, None when it never had an item.
    """

    session_id: str
    items: int
    runs: int
    run_ids: Sequence[str]
    unfinished_run_ids: Sequence[str]
    created_at: datetime | None
    updated_at: datetime | None


WhyStranded = Literal["executor", "version", "agent", "configuration", "queue"]


@dataclass(frozen=True, kw_only=True)
class StrandedRun:
    """A run that no live executor can take.

    `why` is what is missing: any executor, one whose version fits the recorded steps, one that knows the agent, one
    that has the code of the run's configuration, or one that listens to the queue. `detail` says it in words and `hint`
    what mends it, a command.
    """

    run_id: str
    agent: str
    status: RunStatus
    why: WhyStranded
    detail: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """The call that a tool's body executes.

    `idempotency_key` is the same on every attempt and no two calls of a run share it: hand it to the service that
    the tool changes. `attempt` counts the executions of the segment: 1 means that nobody has started this call
    before; more means that somebody may have.
    """

    run_id: str
    call_id: str
    tool: str
    turn: int
    attempt: int
    idempotency_key: str


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


CatchUp = Literal["all", "one", "none"]
CATCH_UPS: tuple[CatchUp, ...] = ("all", "one", "none")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Runs that start by the clock, each with the id `<name>:<time>`.

    `catch_up` says which of the ticks that nobody started in time are started later: all, the newest one, or none.
    `since` is when ticks began to count: when the schedule was made, its times were changed, or it was resumed.
    `last_tick_at` is the newest tick that was started, `next_tick_at` the next one, None while it is paused.
    """

    name: str
    crontab: str
    timezone: str
    catch_up: CatchUp
    agent: str
    input_items: str | list[dict[str, Any]]
    session_id: str | None
    is_paused: bool = False
    since: datetime | None = None
    last_tick_at: datetime | None = None
    next_tick_at: datetime | None = None


UsageKey = Literal["model", "agent", "run", "session", "day"]
USAGE_KEYS: tuple[UsageKey, ...] = ("model", "agent", "run", "session", "day")


@dataclass(frozen=True, kw_only=True)
class PriceData:
    """Which data a cost is from: their name and version, or `local`, and the day on which they were checked."""

    source: str
    priced_at: date | None


@dataclass(frozen=True, kw_only=True)
class UsageTotal:
    """Tokens and cost of the model calls that have one model, agent, run, session or day in common.

    `key` is its name or id, a day as `2026-11-25` in UTC, or None for calls without one. `requests` counts retries too.
    `cost_micro_usd` is that of the calls with a price, None when none has one; `unpriced_calls` counts the others.
    `prices` are the price data of the cost, as far as they are recorded.
    """

    key: str | None
    provider: str | None = None
    calls: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_micro_usd: int | None
    unpriced_calls: int
    prices: Sequence[PriceData] = ()


@dataclass(frozen=True, kw_only=True)
class SettingValue:
    """One setting as `timestep doctor` prints it."""

    name: str
    value: str
    source: str
    problem: str | None = None
    hint: str | None = None
