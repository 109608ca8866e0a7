"""Start runs by the clock: DBOS's schedules, one run a tick."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agents import Agent, RunConfig

from timestep.client.connector import Connector
from timestep.client.crontab import check_crontab, next_tick
from timestep.client.runs import digest_of
from timestep.client.schedules import DEFAULT_CATCH_UP, save_schedule, start_missed
from timestep.durable.process.engine import engine, is_engine_launched
from timestep.durable.process.threads import run_in_thread
from timestep.durable.seams import dbos_sdk
from timestep.durable.segment.request import build_request
from timestep.durable.start import entry_of, given_input, session_of
from timestep.durable.states.origin import Input
from timestep.errors import InvalidInputError
from timestep.ids import check_schedule_name
from timestep.records import CATCH_UPS, CatchUp, RunRequest, Schedule

PATIENCE = timedelta(seconds=15)
"""After this time a tick is looked after here: DBOS spreads the starts of its executors over 10 s."""

_waiting: list[tuple[str, str, RunRequest, str, CatchUp]] = []
"""Schedules that were made before the engine was launched: the arguments of `_save`."""


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
    catch_up: CatchUp = DEFAULT_CATCH_UP,
) -> Schedule:
    """Start a run of an agent at each tick of a cron expression; before or after the engine is launched.

    The schedule is a row: every executor knows it, each tick starts one run, `<schedule>:<time>`. Making it again
    brings the row up to date and logs what has changed; a paused schedule stays paused. The name comes from agent,
    crontab, zone and input when absent.

    Args:
        crontab: Five fields, or six with seconds first; or @hourly, @daily, @weekly, @monthly, @yearly.
        timezone: IANA name of the zone of the crontab.
        catch_up: Which ticks are started later that nobody started within a minute, because every executor or the
            database was away: `one`, the newest of them; `all`, the 1,000 newest; `none`.

    Raises:
        InvalidInputError: the crontab or the zone gives no times, the name is not usable or another application's, or
            as in `run_agent_workflow`.
    """
    check_crontab(crontab, timezone)
    if catch_up not in CATCH_UPS:
        raise InvalidInputError(f"catch_up is one of {', '.join(CATCH_UPS)}, not {catch_up!r}.")
    entry = entry_of(agent if agent is not None else agent_id)
    request = build_request(
        entry,
        given_input(input_items),
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
    check_schedule_name(name)
    arguments = (name, crontab, request, timezone, catch_up)
    if is_engine_launched():
        return run_in_thread(lambda: _save(*arguments))
    _waiting.append(arguments)
    return Schedule(
        name=name,
        crontab=crontab,
        timezone=timezone,
        catch_up=catch_up,
        agent=request.agent,
        input_items=request.input_items,
        session_id=request.session_id,
        next_tick_at=next_tick(crontab, timezone, after=datetime.now(UTC)),
    )


def apply_waiting_schedules() -> None:
    """Store the schedules that were made before the launch."""
    while _waiting:
        _save(*_waiting.pop(0))


def start_missed_ticks(connector: Connector, *, patience: timedelta = PATIENCE) -> None:
    """Start what schedules ask for of the ticks that nobody started in time. Harmless when others do it too."""
    for name, newest in start_missed(connector, until=datetime.now(UTC) - patience):
        dbos_sdk.note_tick(connector.dbos, name, newest)


def _save(name: str, crontab: str, request: RunRequest, timezone: str, catch_up: CatchUp) -> Schedule:
    return save_schedule(engine().connector, name, crontab, request, timezone=timezone, catch_up=catch_up)
