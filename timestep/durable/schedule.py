"""Start runs by the clock: DBOS's schedules, one run a tick."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agents import Agent, RunConfig
from croniter import croniter
from dbos import DBOS

from timestep.durable.engine import is_engine_launched
from timestep.durable.request import build_request, request_fields
from timestep.durable.start import Input, entry_of, given, session_of
from timestep.durable.threads import run_in_thread
from timestep.durable.workflow import registered
from timestep.errors import InvalidInputError
from timestep.ids import WORKFLOW_SCHEDULED_RUN
from timestep.runs import digest_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Runs that start by the clock."""

    name: str
    crontab: str
    timezone: str
    context: dict[str, Any]


_waiting: list[Schedule] = []
"""Schedules that were made before the engine was launched."""


def create_scheduled_agent_workflow(
    crontab: str,
    agent: Agent[Any] | str | None = None,
    input_items: Input | None = None,
    session: Any = None,
    stream: bool = False,
    result_processor: None = None,
    state_store: Any = None,
    session_id: str | None = None,
    *,
    agent_id: str | None = None,
    name: str | None = None,
    timezone: str = "UTC",
    context: Any = None,
    max_turns: int | None = None,
    run_config: RunConfig | Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
) -> Schedule:
    """Start a run of an agent at each tick of a cron expression; before or after the engine is launched.

    The schedule is a row: every executor knows it, each tick starts one run, `<schedule>:<time>`. Making it again
    replaces it. The name comes from agent, crontab and input when absent.

    Args:
        crontab: Five fields, or six with seconds first.
        timezone: IANA name of the zone of the crontab.

    Raises:
        InvalidInputError: the crontab or the zone is not valid, or as in `run_agent_workflow`.
    """
    if not croniter.is_valid(crontab, second_at_beginning=True) or len(crontab.split()) > 6:
        raise InvalidInputError(
            f"The crontab {crontab!r} is not valid.",
            hint='Write five fields, such as "0 9 * * 1-5", or six with seconds.',
        )
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidInputError(
            f"The time zone {timezone!r} is not known.", hint='Use an IANA name, such as "Europe/Berlin".'
        ) from error
    entry = entry_of(agent if agent is not None else agent_id)
    request = build_request(
        entry,
        given(input_items),
        session=session,
        session_id=session_id if session_id is not None else session_of(state_store),
        context=context,
        max_turns=max_turns,
        run_config=run_config,
        timeout_seconds=timeout_seconds,
        stream=stream,
        branch=True,  # each tick is a run of its own
    )
    if name is None:
        digest = hashlib.sha256(f"{crontab} {timezone} {digest_of(request)}".encode()).hexdigest()[:8]
        name = f"{entry.agent.name}-{digest}"
    schedule = Schedule(
        name=name, crontab=crontab, timezone=timezone, context={"schedule": name, "request": request_fields(request)}
    )
    if is_engine_launched():
        run_in_thread(lambda: _apply(schedule))
    else:
        _waiting.append(schedule)
    return schedule


def apply_waiting_schedules() -> None:
    """Store the schedules that were made before the launch."""
    while _waiting:
        _apply(_waiting.pop(0))


def _apply(schedule: Schedule) -> None:
    DBOS.apply_schedules(
        [
            {
                "schedule_name": schedule.name,
                "workflow_fn": registered(WORKFLOW_SCHEDULED_RUN),
                "schedule": schedule.crontab,
                "context": schedule.context,
                "cron_timezone": schedule.timezone,
            }
        ]
    )
