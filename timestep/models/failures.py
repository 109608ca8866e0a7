"""Which failures of a model call may pass: the same call may succeed a moment later."""

from __future__ import annotations

import json

import openai
from agents import ModelBehaviorError
from agents.exceptions import ModelTimeoutError

from timestep.errors import TimestepError

RETRYABLE_STATUS = (408, 409, 429, 500, 502, 503, 504, 529)
TRANSIENT_CODES = frozenset(("server_error", "rate_limit_exceeded", "overloaded_error"))
"""What providers call a passing failure of their own when they tell of it in mid-stream."""


def is_cut(error: Exception) -> bool:
    """Whether an error says that an answer broke off or came too late, as opposed to a refusal."""
    if isinstance(error, openai.APIStatusError):
        return False  # a refusal: its status decides
    if isinstance(error, openai.APIConnectionError):
        return True
    if isinstance(error, openai.APIError):  # told of inside the stream
        return bool(TRANSIENT_CODES.intersection((error.code, error.type)))
    if isinstance(error, TimestepError):
        return error.retryable
    cut = (ModelTimeoutError, json.JSONDecodeError, ConnectionError, TimeoutError)
    if isinstance(error, cut) or type(error).__name__ in ("RemoteProtocolError", "ReadError", "ReadTimeout"):
        return True
    return isinstance(error, ModelBehaviorError) and "before receiving a finish_reason" in str(error)


def is_retryable(error: Exception) -> bool:
    """Whether a failed model call may succeed when it is made again: by its status, else by what broke."""
    if isinstance(error, TimestepError):
        return error.retryable
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status > 0:
        return status in RETRYABLE_STATUS
    return is_cut(error)
