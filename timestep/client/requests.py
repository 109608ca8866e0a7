"""The request of a run, made by a program that may not have the agent: checked, all of it JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from timestep.errors import InvalidInputError, NotDurableError
from timestep.ids import check_run_id, check_session_id, new_run_id
from timestep.inputs import check_item
from timestep.records import RunLimits, RunRequest
from timestep.settings import current_settings
from timestep.store.json_text import dump_json


def new_request(
    agent: str,
    input_items: Any,
    *,
    session_id: str | None = None,
    run_id: str | None = None,
    context: Any = None,
    model: str | None = None,
    limits: RunLimits | None = None,
    stream: bool = False,
) -> RunRequest:
    """Return the request of a run of the agent of that name, with a fresh id when it has none.

    Raises:
        InvalidInputError: a value is malformed.
        NotDurableError: the context is not JSON.
    """
    return RunRequest(
        run_id=new_run_id() if run_id is None else check_run_id(run_id),
        agent=_name(agent, "agent"),
        input_items=check_input(input_items),
        session_id=None if session_id is None else check_session_id(session_id),
        context=_context(context),
        stream=bool(stream),
        model=None if model is None else _name(model, "model"),
        max_turns_per_segment=current_settings().max_turns_per_segment,
        limits=check_limits(limits),
    )


def check_input(input_items: Any, *, kinds: str = "text or a list of items") -> Any:
    """Return an input as JSON: text, or a list of items. `kinds` is what the caller takes, for the message.

    Raises:
        InvalidInputError: it is empty, of another type, or an item is malformed; the message names the item.
    """
    if isinstance(input_items, str):
        if not input_items.strip():
            raise InvalidInputError("The input is empty.", hint="Give the agent some text, or a list of items.")
        return input_items
    if not isinstance(input_items, Sequence):
        raise InvalidInputError(f"The input is {kinds}, not {type(input_items).__name__}: {input_items!r}.")
    if not input_items:
        raise InvalidInputError("The input is an empty list.", hint="Give the agent at least one item.")
    items = [check_item(item, number) for number, item in enumerate(cast("Sequence[Any]", input_items))]
    try:
        dump_json(items)
    except InvalidInputError as error:
        raise InvalidInputError(f"The input is not JSON-able: {error}.") from error
    return items


def check_limits(limits: Any) -> RunLimits | None:
    """Return limits unchanged.

    Raises:
        InvalidInputError: they are of another type.
    """
    if limits is not None and not isinstance(limits, RunLimits):
        raise InvalidInputError(
            f"limits is a RunLimits, not {type(limits).__name__}: {limits!r}.",
            hint="Write limits=RunLimits(max_tokens=100_000).",
        )
    return limits


def check_counts(*, max_turns: Any, timeout_seconds: Any) -> None:
    """Refuse numbers that limit nothing.

    Raises:
        InvalidInputError: one is none, or too small.
    """
    if timeout_seconds is not None and not (
        _is_number(timeout_seconds, (int, float)) and 0 < timeout_seconds < math.inf
    ):
        raise InvalidInputError(f"timeout_seconds is a number of seconds above 0, not {timeout_seconds!r}.")
    if max_turns is not None and not (_is_number(max_turns, int) and max_turns >= 1):
        raise InvalidInputError(f"max_turns is a number of turns from 1 on, not {max_turns!r}.")


def _is_number(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(
            f"{what} is a name, not {value!r}.",
            hint="Write the name that the executors know; `timestep executors list` prints those of agents.",
        )
    dump_json(value)
    return value


def _context(context: Any) -> Any:
    try:
        dump_json(context)
    except InvalidInputError as error:
        raise NotDurableError(
            f"The context of type {type(context).__qualname__} is not JSON: {error}",
            hint="Pass its fields as a dict; the executor makes the class that is registered as context_type of them.",
        ) from error
    return context
