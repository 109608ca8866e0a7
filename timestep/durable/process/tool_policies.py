"""What happens around a tool's body: after a crash in its middle, on failure, and while nobody decides about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from timestep.errors import InvalidInputError
from timestep.records import OnExpiry

OnCrash = Literal["repeat", "ask", "fail"]
T = TypeVar("T")

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class ToolPolicy:
    """How the engine treats the calls of a tool; see `tool_policy`."""

    on_crash: OnCrash = "repeat"
    retries: int = 0
    timeout_seconds: float | None = None
    approval_expires_seconds: float | None = None
    on_expiry: OnExpiry | None = None


_of_tools: dict[int, tuple[object, ToolPolicy]] = {}
"""By identity: tools are neither changed nor hashable. The tool is kept, so that its identity is not given again."""

_of_names: dict[str, ToolPolicy] = {}


def tool_policy(
    tool: T,
    *,
    on_crash: OnCrash = "repeat",
    retries: int = 0,
    timeout_seconds: float | None = None,
    approval_expires_seconds: float | None = None,
    on_expiry: OnExpiry | None = None,
) -> T:
    """Say how the calls of a tool are treated in durable runs, and return the tool.

    `tool` is a tool of an agent, or the name of one: the name holds for tools that are not objects of the program, such
    as those of MCP servers. Say it in every process that executes the agent, at import. Again replaces it.

    Args:
        on_crash: What to do with a call that was started and not recorded when its process died. `repeat` starts it
            again with the same idempotency key. `ask` interrupts the run: a person settles whether it happened. `fail`
            fails the run. With the last two every call is stored before it starts, one transaction more.
        retries: How often a failed body is started again, inside its step, with growing waits from 0.5 s.
        timeout_seconds: Limit of one attempt; after it the body is cancelled and counts as failed.
        approval_expires_seconds: How long an approval of this tool stays open; the setting of that name when absent.
        on_expiry: `reject` tells the model that nobody decided, `fail` fails the run.

    Raises:
        InvalidInputError: a value is malformed.
    """
    if on_crash not in ("repeat", "ask", "fail"):
        raise InvalidInputError(f"on_crash is 'repeat', 'ask' or 'fail', not {on_crash!r}.")
    if on_expiry not in (None, "reject", "fail"):
        raise InvalidInputError(f"on_expiry is 'reject' or 'fail', not {on_expiry!r}.")
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"retries is a number from 0 on, not {retries!r}.")
    for name, seconds in (("timeout_seconds", timeout_seconds), ("approval_expires_seconds", approval_expires_seconds)):
        if seconds is not None and not seconds > 0:
            raise InvalidInputError(f"{name} is a number of seconds above 0, not {seconds!r}.")
    policy = ToolPolicy(
        on_crash=on_crash,
        retries=retries,
        timeout_seconds=timeout_seconds,
        approval_expires_seconds=approval_expires_seconds,
        on_expiry=on_expiry,
    )
    if isinstance(tool, str):
        _of_names[tool] = policy
    elif isinstance(getattr(tool, "name", None), str):
        _of_tools[id(tool)] = (tool, policy)
    else:
        raise InvalidInputError(f"tool_policy takes a tool or the name of one, not {type(tool).__name__}: {tool!r}.")
    return tool


def policy_of(name: str, tool: Any = None) -> ToolPolicy:
    """Return the policy of a tool: its own, else that of its name, else the default."""
    known = _of_tools.get(id(tool)) if tool is not None else None
    return known[1] if known is not None else _of_names.get(name, _DEFAULT)


_DEFAULT = ToolPolicy()
