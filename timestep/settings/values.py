"""Values of settings as people write them: each function returns one, or raises ValueError(what to write)."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from timestep.errors import InvalidInputError
from timestep.ids import check_queue_name
from timestep.records import ModelServer, QueueLimits, RateLimit
from timestep.settings.urls import mask_url

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
YES = ("1", "true", "yes", "on")
NO = ("0", "false", "no", "off")


def name(raw: Any) -> str:
    """Return an application name, as DBOS allows it."""
    if not isinstance(raw, str) or not re.fullmatch(r"[a-z0-9_-]{3,256}", raw):
        raise ValueError("3 to 256 lower-case letters, digits, dashes and underscores, such as my-app")
    return raw


def identifier(raw: Any) -> str:
    """Return an identifier of up to 200 characters."""
    text = str(raw)
    if isinstance(raw, bool) or not 0 < len(text) <= 200 or not text.isprintable() or text != text.strip():
        raise ValueError("1 to 200 printable characters")
    return text


def folder(raw: Any) -> Path:
    """Return a path, with `~` resolved."""
    if not isinstance(raw, str | Path) or "\0" in str(raw):
        raise ValueError("a path of a folder")
    try:
        return Path(raw).expanduser()
    except RuntimeError:
        raise ValueError("a path that does not begin with ~") from None


def whole(least: int, most: int) -> Callable[[Any], int]:
    """Return the converter to whole numbers from `least` to `most`."""

    def convert(raw: Any) -> int:
        text = str(raw).strip()
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return convert


def seconds(raw: Any) -> float:
    """Return seconds."""
    problem = ValueError("a number of seconds from 0.1 to 3600")
    try:
        seconds = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError):
        raise problem from None
    if not 0.1 <= seconds <= 3600:
        raise problem
    return seconds


def long_seconds(raw: Any) -> float:
    """Return seconds, up to ten years of them."""
    problem = ValueError("a number of seconds from 1 to 315360000")
    try:
        seconds = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError):
        raise problem from None
    if not 1 <= seconds <= 315_360_000:
        raise problem
    return seconds


def one_of(*words: str) -> Callable[[Any], str]:
    """Return the converter to one of these words."""

    def convert(raw: Any) -> str:
        word = str(raw).strip().lower()
        if word not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return word

    return convert


def yes_or_no(raw: Any) -> bool:
    """Return a truth value."""
    word = str(raw).strip().lower()
    if word not in YES + NO:
        raise ValueError("1 or 0")
    return word in YES


def log_level(raw: Any) -> str:
    """Return the name of a log level."""
    level = str(raw).strip().upper()
    if level not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return level


def model_providers(raw: Any) -> dict[str, ModelServer]:
    """Return servers of models by prefix, of a mapping or of its JSON."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError:
            raise ValueError(_MODEL_PROVIDERS_FORM) from None
    if not isinstance(raw, Mapping):
        raise ValueError(_MODEL_PROVIDERS_FORM)
    servers = cast("Mapping[Any, Any]", raw)
    return {_prefix(prefix): _model_server(server) for prefix, server in servers.items()}


def is_http_url(text: str) -> bool:
    """Return whether a text is an address of HTTP, with its scheme and a host."""
    return re.fullmatch(r"https?://[^\s/]+\S*", text, re.IGNORECASE) is not None


def queues(raw: Any) -> dict[str, QueueLimits]:
    """Return limits of queues by name, of a mapping or of its JSON."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError:
            raise ValueError(_QUEUES_FORM) from None
    if not isinstance(raw, Mapping):
        raise ValueError(_QUEUES_FORM)
    given = cast("Mapping[Any, Any]", raw)
    return {str(name): _queue_limits(str(name), limits) for name, limits in given.items()}


_QUEUE_LIMITS = tuple(field.name for field in dataclasses.fields(QueueLimits))

_QUEUES_FORM = 'a mapping such as {"reports": {"global_concurrency": 2}}; a queue may have ' + ", ".join(_QUEUE_LIMITS)


def _queue_limits(name: str, raw: Any) -> QueueLimits:
    given = {} if raw is None else raw
    if not isinstance(given, Mapping):
        raise ValueError(_QUEUES_FORM)
    limits = cast("dict[str, Any]", dict(cast("Mapping[Any, Any]", given)))
    if unknown := sorted(str(key) for key in limits if key not in _QUEUE_LIMITS):
        raise ValueError(f"{_QUEUES_FORM}, and not {unknown[0]!r} as {name!r} has")
    try:
        check_queue_name(name)
        return QueueLimits(**limits)
    except InvalidInputError as error:
        raise ValueError(f"{_QUEUES_FORM}; of {name!r}: {error}") from None


_MODEL_PROVIDERS_FORM = (
    'a mapping such as {"local": {"base_url": "http://localhost:8080/v1"}}; beside base_url a server may have '
    "api_key_env (the name of a variable), use_responses (true or false) and kind (openai or ollama)"
)


def _prefix(raw: Any) -> str:
    text = str(raw)
    if not re.fullmatch(r"[^\s/|]{1,100}", text):
        raise ValueError(f"a mapping of prefixes without spaces, / and |, which {text!r} is not")
    return text


def _model_server(raw: Any) -> ModelServer:
    given: dict[str, Any] = {"base_url": raw} if isinstance(raw, str) else raw
    known = ("base_url", "api_key_env", "use_responses", "kind")
    if not isinstance(given, dict) or given.keys() - set(known):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(_MODEL_PROVIDERS_FORM)
    base_url, kind, key = given.get("base_url"), given.get("kind", "openai"), given.get("api_key_env")
    is_url = isinstance(base_url, str) and is_http_url(base_url)
    if not is_url or kind not in ("openai", "ollama") or not isinstance(key, (str, type(None))):
        raise ValueError(_MODEL_PROVIDERS_FORM)
    use_responses = yes_or_no(given.get("use_responses", "no"))
    return ModelServer(base_url=str(base_url), api_key_env=key or None, use_responses=use_responses, kind=kind)


def rate_limits(raw: Any) -> dict[str, RateLimit]:
    """Return rate limits by a model's name, a prefix with its `/`, or a host; of a mapping or of its JSON."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError:
            raise ValueError(_RATE_LIMITS_FORM) from None
    if not isinstance(raw, Mapping):
        raise ValueError(_RATE_LIMITS_FORM)
    limits = cast("Mapping[Any, Any]", raw)
    return {_limited(key): _rate_limit(str(key), limit) for key, limit in limits.items()}


LARGEST_RATE = 10**12

_RATE_LIMITS_FORM = (
    'a mapping such as {"gpt-4.1": {"requests_per_minute": 500, "tokens_per_minute": 30000}, "ollama/": {...}, '
    f'"api.openai.com": {{...}}}}; one of the two may be left out, and each is a whole number from 1 to {LARGEST_RATE}'
)


def _limited(raw: Any) -> str:
    text = str(raw)
    if not re.fullmatch(r"[^\s|]{1,200}", text) or "://" in text:
        raise ValueError(f"a mapping of models, prefixes with a / at their end, and hosts, of which {text!r} is none")
    return text


def _rate_limit(key: str, raw: Any) -> RateLimit:
    if isinstance(raw, RateLimit):
        raw = {name: value for name, value in vars(raw).items() if value is not None}
    given = cast("Mapping[Any, Any]", raw) if isinstance(raw, Mapping) else {}
    convert = whole(1, LARGEST_RATE)
    try:
        if not given or any(isinstance(value, bool) for value in given.values()):
            raise ValueError
        return RateLimit(**{str(name): convert(value) for name, value in given.items()})
    except (TypeError, ValueError):  # another name, or no number
        raise ValueError(f"{_RATE_LIMITS_FORM}. {key!r} has {raw!r}") from None


def shown(value: Any) -> str:
    """Return a value of a setting as people read it; passwords are masked."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value).items()
        return ", ".join(_shown_entry(str(key), entry) for key, entry in entries)
    text = "" if value is None else str(value)
    text = mask_url(text) if "://" in text else text
    return text if len(text) <= 200 else f"{text[:197]}..."


def _shown_entry(key: str, entry: Any) -> str:
    if isinstance(entry, ModelServer):
        return f"{key}/ at {mask_url(entry.base_url)}"
    if isinstance(entry, QueueLimits):
        return key
    if isinstance(entry, RateLimit):
        words = {"requests": entry.requests_per_minute, "tokens": entry.tokens_per_minute}
        rates = [f"{rate:,} {word}" for word, rate in words.items() if rate is not None]
        return f"{key}: {' and '.join(rates)} a minute"
    return f"{key}: {entry}"
