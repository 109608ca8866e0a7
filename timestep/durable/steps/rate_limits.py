"""Rate limits of model calls, which all executors of the database share.

Before a call is made, inside its step, it takes one request and the tokens that it is likely to need of every limit
that is configured for its model, its provider's prefix or its host: all or none, in one statement. A call that is
refused sleeps, without a thread or a connection, in the order in which the calls of its process came, and asks again.
After the answer the tokens that it used in fact are settled.

A call that waits is outside the gate: a drain does not wait for it, and it passes the gate again before it is made.

A 429 with `Retry-After` pauses the limit for all; without a configured limit it pauses the model at its host. Of such a
pause executors hear once a second, with their chores, so that calls without a limit cost no statement; with a limit the
statement itself says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections.abc import Generator, Mapping
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from agents import FunctionTool, Model
from agents.usage import Usage

from timestep.durable.journal.scope import Segment
from timestep.durable.journal.step_events import StepEvents
from timestep.durable.process.engine import engine, is_engine_launched
from timestep.durable.process.gate import gate
from timestep.durable.steps.model_retry import seconds_refused
from timestep.models.clients import base_url_of
from timestep.models.multi_model import OPENAI
from timestep.records import RateLimit
from timestep.store.rate_limits import Share, Verdict, pause, seconds_of_tokens, settle_tokens, take
from timestep.words import WAITING_FOR_RATE_LIMIT

log = logging.getLogger("timestep")

CHARACTERS_PER_TOKEN = 4
ATTACHMENT_TOKENS = 1000
"""What an image or a file is taken for: each provider counts them in its own way."""

ATTACHMENTS = ("input_image", "input_file", "input_audio")

LONGEST_SLEEP_SECONDS = 10.0
"""How long a waiting call sleeps at most before it asks again, so that a pause which a person lifts ends soon."""

LONGEST_PAUSE_SECONDS = 86_400.0
SHORTEST_SLEEP_SECONDS = 0.001


class CallLimits:
    """The rate limits of one model call: of all its attempts at one model."""

    def __init__(
        self,
        limits: Mapping[str, RateLimit],
        *,
        pause_key: str,
        model: Model,
        segment: Segment,
        agent: str,
        arguments: Mapping[str, Any],
    ) -> None:
        self._limits, self._pause_key = limits, pause_key
        self._model, self._segment, self._agent = model, segment, agent
        self._has_tokens = any(limit.tokens_per_minute is not None for limit in limits.values())
        self._tokens = _estimated_tokens(arguments) if self._has_tokens else 0

    @classmethod
    def of(
        cls,
        model: Model,
        name: str | None,
        *,
        is_named: bool,
        segment: Segment,
        agent: str,
        arguments: Mapping[str, Any],
    ) -> CallLimits:
        """Return the limits of a call of a model.

        Args:
            name: Its name, as the agent says it, or as the model does.
            is_named: Whether the provider was found by that name, so that one without a prefix is OpenAI's.
            arguments: What the model is asked; its tokens are estimated.
        """
        configured = engine().settings.rate_limits if is_engine_launched() else {}
        url = urlsplit(base_url_of(model) or "")
        found = {key: limit for key, limit in configured.items() if _holds(key, name, url, is_named=is_named)}
        own_key = "@".join(filter(None, (name, _address(url))))
        pause_key = min(found, key=lambda key: _breadth(key, name), default=own_key)
        return cls(found, pause_key=pause_key, model=model, segment=segment, agent=agent, arguments=arguments)

    async def take(self, told: StepEvents, *, retry: int) -> None:
        """Return when the call may be made. Without a limit and without a pause nothing is asked of the database.

        The tokens are estimated: a quarter of the characters of instructions, input and tools, a thousand for each
        image and file, and `max_tokens`, when the agent's model settings have it.

        Raises:
            ExecutorFencedError: this executor was taken over while the call waited.
        """
        if not self._limits and self._pause_key not in paused_keys():
            return
        line = _line_of(tuple(self._limits) or (self._pause_key,))
        verdict = await self._ask(others=self._segment.waiting_calls, may_take=line.length == 0)
        if verdict.is_taken:
            return
        self._tell(verdict, told, retry=retry)
        with line.joined(self._segment), gate.outside():
            seconds = 0.0 if line.lock.locked() else verdict.seconds  # what others take meanwhile is not in it
            async with line.lock:
                while not verdict.is_taken:
                    await asyncio.sleep(min(max(seconds, SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS))
                    await gate.pass_through()
                    verdict = await self._ask(others=self._segment.waiting_calls - 1)
                    seconds = verdict.seconds

    async def settle(self, usage: Usage) -> None:
        """Take the tokens that an answer needed beyond the estimate, or give back what it did not need.

        A call that failed, and one whose provider tells no tokens, keeps its estimate.
        """
        used = usage.input_tokens + usage.output_tokens
        if not self._has_tokens or used in (0, self._tokens):
            return
        owed = {key: seconds_of_tokens(limit, used - self._tokens) for key, limit in self._limits.items()}
        seconds = {key: value for key, value in owed.items() if value is not None}
        await engine().database.run_until_done(settle_tokens, seconds)

    async def heed(self, error: Exception, *, attempt: int, stream: bool) -> float:
        """Pause the model, or what its narrowest limit holds for, as long as a 429 says; return for how many seconds.

        The next attempt waits for that as all others do. A pause lasts a day at most; it is 0 when the 429 does not
        say, or when neither a limit nor name or host of the model tells whose calls wait.
        """
        seconds = seconds_refused(error, attempt=attempt, model=self._model, stream=stream)
        if seconds is None or not self._pause_key or not is_engine_launched():
            return 0.0
        seconds = min(seconds, LONGEST_PAUSE_SECONDS)
        await engine().database.run_until_done(pause, self._pause_key, seconds=seconds)
        note_pauses({self._pause_key: seconds})
        return seconds

    def _tell(self, verdict: Verdict, told: StepEvents, *, retry: int) -> None:
        seconds = round(verdict.seconds, 3)
        log.info("Run %s: waiting for rate limit %s, %s s or more.", self._segment.run_id, verdict.key, seconds)
        told.add(
            {"type": WAITING_FOR_RATE_LIMIT, "agent": self._agent, "limit": verdict.key, "seconds": seconds},
            retry=retry,
        )

    async def _ask(self, *, others: int, may_take: bool = True) -> Verdict:
        """Take, or hear how long to wait; `others` are calls of the same run that wait."""
        shares = [Share.of(key, limit, tokens=self._tokens) for key, limit in self._limits.items()]
        return await engine().database.run_until_done(
            take,
            shares or [Share(key=self._pause_key)],
            run_id=self._segment.run_id,
            may_take=may_take,
            is_last=others == 0,
        )


_paused: dict[str, float] = {}
"""Until when limits are paused, as far as this process knows; on the monotonic clock."""


def note_pauses(seconds: Mapping[str, float]) -> None:
    """Note which limits are paused, and for how many seconds more."""
    global _paused
    now = time.monotonic()
    known = {key: until for key, until in _paused.items() if until > now}
    _paused = known | {key: now + more for key, more in seconds.items()}


def paused_keys() -> list[str]:
    """Return what is paused, as far as this process knows."""
    now = time.monotonic()
    return [key for key, until in _paused.items() if until > now]


class _Line:
    """The calls of one event loop that wait for the same limits: the first of them asks, the others stand behind it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.length = 0

    @contextlib.contextmanager
    def joined(self, segment: Segment) -> Generator[None]:
        """Stand in the line."""
        self.length += 1
        segment.waiting_calls += 1
        try:
            yield
        finally:
            self.length -= 1
            segment.waiting_calls -= 1


_lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, ...], _Line]] = weakref.WeakKeyDictionary()


def _line_of(keys: tuple[str, ...]) -> _Line:
    return _lines.setdefault(asyncio.get_running_loop(), {}).setdefault(keys, _Line())


def _holds(key: str, name: str | None, url: SplitResult, *, is_named: bool) -> bool:
    """Whether a configured limit holds for a model: by its name, its provider's prefix, or the host that is called."""
    if key.endswith("/"):
        full = f"{OPENAI}/{name}" if is_named and "/" not in (name or "") else name
        return full is not None and full.startswith(key)
    return _is_name(key, name) or key.lower() in (url.hostname, _address(url))


def _is_name(key: str, name: str | None) -> bool:
    return name is not None and key.removeprefix(f"{OPENAI}/") == name.removeprefix(f"{OPENAI}/")


def _breadth(key: str, name: str | None) -> int:
    """Return 0 for the limit of a model, 1 for that of a prefix, 2 for that of a host."""
    return 0 if _is_name(key, name) else 1 if key.endswith("/") else 2


def _address(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2].lower()


def _estimated_tokens(arguments: Mapping[str, Any]) -> int:
    tools = [tool for tool in arguments.get("tools") or () if isinstance(tool, FunctionTool)]
    described = [(tool.name, tool.description, tool.params_json_schema) for tool in tools]
    characters = _characters([arguments.get("system_instructions"), arguments.get("input"), described])
    return 1 + characters // CHARACTERS_PER_TOKEN + (arguments["model_settings"].max_tokens or 0)


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        if fields.get("type") in ATTACHMENTS:
            return ATTACHMENT_TOKENS * CHARACTERS_PER_TOKEN
        return sum(map(_characters, fields.values()))
    return sum(map(_characters, cast("list[Any]", value))) if isinstance(value, (list, tuple)) else 0
