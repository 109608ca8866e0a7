"""Values of settings as people write them: each function returns one, or raises ValueError(what to write)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
