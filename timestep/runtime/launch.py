"""Configure, launch, drain and stop the engine of this process. There is one, as there is one DBOS."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from dbos import DBOS, DBOSConfig
from dbos import error as dbos_error
from sqlalchemy.exc import ProgrammingError

from timestep import event_loops, home_loop
from timestep.client.connector import Connector, sqlalchemy_url
from timestep.client.serializer import JournalSerializer, refuse_pickles
from timestep.durable.process import closed_workflows, segment_place
from timestep.durable.process.engine import Engine, begin_to_stop, engine, is_engine_launched, set_engine, set_launcher
from timestep.durable.process.gate import gate
from timestep.durable.process.registered_agents import registered_names
from timestep.durable.process.threads import run_in_thread, running_loop
from timestep.durable.queues import make_queues
from timestep.durable.schedules import apply_waiting_schedules, start_missed_ticks
from timestep.durable.seams import dbos_journal, dbos_recovery, dbos_sdk
from timestep.durable.segment import runner
from timestep.durable.segment.workflow import register_workflows
from timestep.errors import (
    AgentNotRegisteredError,
    DatabaseNotReadyError,
    ExecutorFencedError,
    HistoryChangedError,
    RunCancelledError,
    RunStateError,
)
from timestep.ids import DBOS_SCHEMA, DURABLE_VERSION, SEGMENT_QUEUE
from timestep.runtime.chores import Chores
from timestep.runtime.executor import Executor
from timestep.runtime.versions import Versions
from timestep.settings import (
    Settings,
    current_settings,
    reset_settings,
    resolve_settings,
    set_current_settings,
)
from timestep.store.connection import Database
from timestep.store.process_database import current_database, reset_current_database

log = logging.getLogger("timestep")

DRAIN_SECONDS = 30
_lock = threading.RLock()
_executor: Executor | None = None


class _ExpectedEnds(logging.Filter):
    """Drop what DBOS logs about ends of segments that are no failures: parked, cancelled, fenced."""

    _EXPECTED = (
        AgentNotRegisteredError,
        ExecutorFencedError,
        HistoryChangedError,
        RunCancelledError,
        RunStateError,
        dbos_error.DBOSAwaitedWorkflowCancelledError,
    )
    _TEXTS = (
        "Asyncio task cancelled for workflow or step",
        "was cancelled during execution",
        "outcome was not recorded",
        "is no longer owned by this execution",
    )

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], self._EXPECTED):
            return False
        text = record.getMessage()
        return not any(part in text for part in self._TEXTS)


class Done:
    """What has been done already; may be awaited, with what is left for the running loop to do."""

    def __init__(self, value: Any = None, *, left: asyncio.Task[None] | None = None) -> None:
        self.value, self._left = value, left

    def __await__(self) -> Generator[Any, None, Any]:
        return _returning(self.value, self._left).__await__()

    def __bool__(self) -> bool:
        return bool(self.value)


def prepare_sdk() -> None:
    """Make the SDK's results and runner those that the documents describe; before a run, durable or not."""
    runner.install()


def configure_dbos(
    name: str | None = None,
    system_database_url: str | None = None,
    *,
    executor_id: str | None = None,
    application_version: str | None = None,
    rate_limits: Mapping[str, Mapping[str, int]] | None = None,
) -> Done:
    """Say what the engine of this process uses, before it is launched. Acts at once; may be awaited and repeated.

    Without arguments the environment, `dbos-config.yaml` and the defaults hold; see `timestep doctor`. `rate_limits`
    has the form of the setting, such as `{"gpt-4.1": {"requests_per_minute": 500, "tokens_per_minute": 30_000}}`.

    Raises:
        SettingsError: a value is malformed, or two sources name different databases.
    """
    with _lock:
        if is_engine_launched():
            return Done()
        given = {
            "name": name,
            "database_url": system_database_url,
            "executor_id": executor_id,
            "application_version": application_version,
            "rate_limits": rate_limits,
        }
        arguments: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        set_current_settings(resolve_settings(dbos_url=dbos_sdk.configured_database_url(), **arguments))
    return Done()


def ensure_dbos_launched(*, queues: Sequence[str] | None = None) -> Done:
    """Launch the engine if it is not launched. Acts at once, also under a running event loop; may be awaited.

    Starts the embedded server when no database is configured, migrates both schemas, and takes over at once what an
    earlier start of this program left.

    Args:
        queues: The queues from which this process takes runs, () for none; every queue when absent. Next segments of
            runs that go on are taken too; with () only when agents are registered by now.

    Raises:
        DatabaseNotReadyError: no database answers, or its schema does not fit.
        ExecutorIdInUseError: another live process has the configured executor id.
    """
    home_loop.enter()
    with _lock:
        if not is_engine_launched():
            run_in_thread(lambda: _launch(queues))
    return Done()


def is_dbos_launched() -> bool:
    """Whether the engine of this process is launched."""
    return is_engine_launched()


def get_dbos_connection_string() -> str:
    """Return the url of the database that this process uses; it holds the password."""
    return current_database().url


def cleanup_dbos() -> Done:
    """Stop the engine of this process; its runs go on elsewhere or at the next start. May be awaited and repeated."""
    global _executor
    with _lock:
        stopped, _executor = _executor, None
        if stopped is not None:
            launched = engine()
            begin_to_stop()
            here = running_loop()
            run_in_thread(lambda: _stop(stopped, launched, here=here))
            set_engine(None)
        reset_current_database()
        reset_settings()
    return Done(left=event_loops.close_here())


def drain(*, seconds: float = DRAIN_SECONDS) -> bool:
    """Take no new work, let the steps that run finish, then begin no more; True when all have finished in time.

    What is left is handed over at once when the process stops.
    """
    dbos_sdk.stop_taking_work()
    gate.is_draining = True
    deadline = time.monotonic() + seconds
    while gate.inside and time.monotonic() < deadline:
        time.sleep(0.05)
    return not gate.inside


def application_version_of(settings: Settings) -> str:
    """Return the version that segments are bound to: application, engine, and the application's own version."""
    return f"{settings.name}:{DURABLE_VERSION}:{settings.application_version or '1'}"


def _launch(queues: Sequence[str] | None) -> None:
    global _executor
    settings = current_settings()
    database = current_database()
    version = application_version_of(settings)
    atexit.unregister(cleanup_dbos)
    atexit.register(cleanup_dbos)  # after the embedded server's own: exit handlers run last in, first out
    refuse_pickles()
    runner.install()
    gate.reset()
    listened = None if queues is None else [*queues, SEGMENT_QUEUE] if queues or registered_names() else []
    connector = Connector(database, application=settings.name)
    executor = Executor(database, settings, version=version, gate=gate, queues=queues)
    executor.start()
    try:
        DBOS(config=_config(settings, database, executor_id=executor.id, version=version))
        if listened is not None:
            DBOS.listen_queues(listened)
        register_workflows()
        _quieten()
        _catch_up(connector)
        DBOS.launch()
        home_loop.set_own(dbos_sdk.own_loop())
        dbos_sdk.separate_tool_threads(settings.tool_threads)
        dbos_journal.shorten_ways(database.autocommit_engine)
        set_engine(
            Engine(
                settings=settings,
                connector=connector,
                executor_id=executor.id,
                application_version=version,
            )
        )
        make_queues()
        apply_waiting_schedules()
    except BaseException as error:
        executor.stop()
        connector.close()
        set_engine(None)
        with contextlib.suppress(Exception):
            DBOS.destroy()
        if isinstance(error, Exception) and "migration" in str(error).lower():
            raise DatabaseNotReadyError(
                f"The schema of DBOS in {database.display_url} does not fit: {error}"
            ) from error
        raise
    queue = SEGMENT_QUEUE if listened is None or SEGMENT_QUEUE in listened else dbos_recovery.INTERNAL_QUEUE_NAME
    chores = Chores(connector, executor_id=executor.id, version=version, queue=queue)
    segment_place.begin_to_give_back(executor.wake)
    versions = Versions(database, connector.dbos, version=version)
    executor.launched(lambda: [executor.tell_agents_when_changed, *chores.due()], versions)
    _executor = executor


def _catch_up(connector: Connector) -> None:
    """Start what was missed while no executor lived, before this one starts newer ticks.

    Where the schema of DBOS is not there yet, or not this version's, the chores do it after the launch.
    """
    with contextlib.suppress(ProgrammingError):
        start_missed_ticks(connector, patience=timedelta())


def _quieten() -> None:
    dbos_log = logging.getLogger("dbos")
    if not any(isinstance(each, _ExpectedEnds) for each in dbos_log.filters):
        dbos_log.addFilter(_ExpectedEnds())


def _config(settings: Settings, database: Database, *, executor_id: str, version: str) -> DBOSConfig:
    kwargs: dict[str, Any] = {"pool_pre_ping": False, "hide_parameters": True}
    if database.creator is not None:
        kwargs["creator"] = database.creator
    return {
        "name": settings.name,
        "system_database_url": sqlalchemy_url(database),
        "dbos_system_schema": DBOS_SCHEMA,
        "executor_id": executor_id,
        "application_version": version,
        "serializer": JournalSerializer(),
        "db_engine_kwargs": kwargs,
        "sys_db_pool_size": settings.pool_size,
        "max_executor_threads": settings.executor_threads,
        "run_migrations": settings.run_migrations,
        "log_level": settings.log_level,
        "scheduler_polling_interval_sec": 2.0,
    }


def _stop(executor: Executor, launched: Engine, *, here: asyncio.AbstractEventLoop | None) -> None:
    dbos_sdk.stop_taking_work()
    gate.is_draining = True
    executor.rest()
    dbos_sdk.wait_for_what_is_taken()
    closed_workflows.finish()
    event_loops.close_others(here)
    dbos_sdk.forget_ended_loop()
    DBOS.destroy()
    home_loop.set_own(None)
    launched.connector.close()
    executor.stop()


async def _returning(value: Any, left: asyncio.Task[None] | None) -> Any:
    if left is not None:
        await left
    return value


set_launcher(ensure_dbos_launched)  # type: ignore[arg-type] - the engine does not look at what it returns
