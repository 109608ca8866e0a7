"""The life of an executor: its lock, and the takeover of executors that are gone.

Each executor holds a session advisory lock on a connection of its own while it lives. Postgres drops the lock with the
connection, so a free lock says that the process is gone, or that it cannot reach the database. A server restart drops
all locks at once; so a lock counts as free only when it was free for `takeover_seconds` on a server that has been up
for as long. On the same machine a dead pid is proof, and nobody waits.

An executor whose event loop is ended by the code that it runs gives its lock up, and stops for good.

An executor that loses its lock closes its gate: no step begins until it has the lock back. One that was taken over
meanwhile finds its row gone, and stops for good; DBOS refuses what it would still write.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row

from timestep.durable.process.gate import Gate
from timestep.durable.process.registered_agents import registered_names
from timestep.durable.seams import dbos_recovery, dbos_sdk
from timestep.errors import ExecutorIdInUseError
from timestep.ids import SEGMENT_QUEUE
from timestep.runtime.versions import LiveExecutor, Versions
from timestep.settings import Settings
from timestep.store.connection import Database
from timestep.store.executors import LOCK_PREFIX, ExecutorRow, insert_executor

log = logging.getLogger("timestep")

TICK_SECONDS = 1.0

SHORTEST_GOOD_SECONDS = 3 * TICK_SECONDS
"""How long a look at the own lock holds at least; else as long as the others wait before they take over."""

_OTHERS = """
select e.id, e.application_version as version, e.queues is null or json_array_length(e.queues) > 0 as takes_runs,
  e.pid, e.process_space, extract(epoch from now() - e.free_since) as free_seconds,
  extract(epoch from now() - pg_postmaster_start_time()) as up_seconds,
  coalesce(e.free_since = 'epoch', false) as has_left,
  not exists (
    select 1 from pg_locks l
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select oid from pg_database where datname = current_database())
      and l.classid::bigint = ((hashtextextended(%(prefix)s || e.id, 0) >> 32) & 4294967295)
      and l.objid::bigint = (hashtextextended(%(prefix)s || e.id, 0) & 4294967295)) as is_free
from timestep.executors e
where e.id <> %(me)s
"""


_NOTICE_SOON = """
select set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false)
"""


def new_executor_id() -> str:
    """Return an id that no other process has."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def process_space() -> str:
    """Return what two processes share when each can see whether the other's pid is alive: boot and pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return hashlib.sha256(f"{boot} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:16]
    except OSError:
        return f"unknown-{uuid.uuid4().hex}"


@dataclass(frozen=True, kw_only=True)
class _Other:
    """Another executor as a tick sees it.

    `free_seconds` is None when its lock was not seen free before; `has_left`: it gave the lock up itself.
    """

    id: str
    version: str
    takes_runs: bool
    pid: int
    process_space: str
    free_seconds: float | None
    up_seconds: float
    has_left: bool
    is_free: bool

    def live(self) -> LiveExecutor:
        return LiveExecutor(executor_id=self.id, version=self.version, takes_runs=self.takes_runs)


class Executor:
    """This process as an executor."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        version: str,
        gate: Gate,
        queues: Sequence[str] | None = None,
    ) -> None:
        """`queues` are those that runs are taken from, None for all of them."""
        self.id = settings.executor_id or new_executor_id()
        self._database, self._settings, self._version, self._gate = database, settings, version, gate
        self._connection: psycopg.Connection[Any] | None = None
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._live, name="timestep-executor", daemon=True)
        self._due: Callable[[], Sequence[Callable[[], None]]] = list
        self._failing: set[str] = set()
        self._has_launched = False
        self._queues = queues
        self._told: list[str] = []
        self._versions: Versions | None = None

    def start(self) -> None:
        """Take the lock and tell the others of this executor; before DBOS is launched.

        Raises:
            ExecutorIdInUseError: another live process has this id.
        """
        self._connection = self._connect()
        if not self._try_lock(self.id):
            self._connection.close()
            raise ExecutorIdInUseError(f"Another live process has the executor id {self.id!r}.")
        self._tell()
        self._thread.start()

    def launched(self, due: Callable[[], Sequence[Callable[[], None]]], versions: Versions | None = None) -> None:
        """Begin to take over, and to do the chores that `due` returns at each tick; after DBOS is launched.

        With `versions` what is bound to versions that are gone is taken over too.
        """
        self._due, self._versions = due, versions
        self._has_launched = True

    def wake(self) -> None:
        """Do the next tick at once; from any thread."""
        self._wake.set()

    def tell_agents_when_changed(self) -> None:
        """Store the names of the registered agents when they have changed."""
        if self._agents() != self._told:
            self._tell()

    def rest(self) -> None:
        """Take over no more and do no more chores; the lock stays."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def stop(self) -> None:
        """Give the lock up at once: what still is this executor's may be taken over without a wait."""
        self.rest()
        if self._connection is None or self._connection.closed:
            return
        try:
            self._connection.execute("update timestep.executors set free_since = 'epoch' where id = %s", [self.id])
            self._connection.close()
        except psycopg.Error:
            log.debug("Executor %s: its row could not be marked as free.", self.id)

    def _tell(self) -> None:
        row = ExecutorRow(
            id=self.id,
            application_version=self._version,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_space=process_space(),
            agents=self._agents(),
            queues=self._queues,
        )
        self._database.run_sync(insert_executor, row)
        self._told = list(row.agents)

    def _agents(self) -> list[str]:
        """Return the agents whose queued runs are executed here."""
        return registered_names() if self._takes_runs else []

    @property
    def _takes_runs(self) -> bool:
        return self._queues is None or bool(self._queues)

    def _live(self) -> None:
        while not self._is_stopped_after_wait():
            if self._has_launched and dbos_sdk.has_own_loop_ended():
                self._end_with_loop()
                return
            try:
                self._tick()
            except psycopg.OperationalError as error:
                self._lost(error)
            except Exception:
                log.exception("Executor %s: a tick failed; the next one follows.", self.id)

    def _end_with_loop(self) -> None:
        """Stop for good: without the engine's event loop nothing that this executor takes is executed."""
        self._gate.why_fenced = f"The event loop of the executor {self.id!r} has ended: code that it ran ended it."
        log.error("%s It stops, and its runs go on elsewhere.", self._gate.why_fenced)
        self._gate.is_fenced = True
        dbos_sdk.stop_taking_work()
        self.stop()

    def _is_stopped_after_wait(self) -> bool:
        self._wake.wait(TICK_SECONDS)
        self._wake.clear()
        return self._stop.is_set()

    def _tick(self) -> None:
        if self._connection is None or self._connection.closed:
            self._regain()
        assert self._connection is not None
        began_at = time.monotonic()
        with self._connection.cursor(row_factory=class_row(_Other)) as cursor:
            others = cursor.execute(_OTHERS, {"me": self.id, "prefix": LOCK_PREFIX}).fetchall()
        good_seconds = max(self._settings.takeover_seconds, SHORTEST_GOOD_SECONDS)
        self._gate.confirm(seconds=good_seconds - (time.monotonic() - began_at))
        if not self._has_launched or self._gate.is_fenced:
            return
        self._take_over(self._connection, others)
        for chore in self._due():
            self._do(self._connection, chore)

    def _do(self, connection: psycopg.Connection[Any], chore: Callable[[], None]) -> None:
        """Do a chore; when it fails, those behind it are done all the same, as long as the lock is held."""
        name = getattr(chore, "__name__", "chore").strip("_")
        try:
            chore()
        except Exception:
            if name not in self._failing:  # once until it works again
                log.exception("Executor %s: %s failed; it is tried again.", self.id, name)
            self._failing.add(name)
            connection.execute("select 1")
        else:
            self._failing.discard(name)

    def _lost(self, error: psycopg.OperationalError) -> None:
        if self._gate.is_open:
            log.warning("Executor %s lost its lock, no step begins until it is back: %s", self.id, error)
        self._gate.is_open = False
        if self._connection is not None:
            self._connection.close()

    def _regain(self) -> None:
        """Take the lock again after an outage; an executor that was taken over meanwhile stops for good."""
        self._connection = self._connect()
        known = self._connection.execute("select 1 from timestep.executors where id = %s", [self.id]).fetchone()
        if known is None:
            self._fence()  # its lock stays free: what it may have taken meanwhile is taken over too
            return
        if not self._try_lock(self.id):
            raise psycopg.OperationalError("another process is looking at this executor's lock")
        self._connection.execute("update timestep.executors set free_since = null where id = %s", [self.id])
        log.warning("Executor %s has its lock back.", self.id)

    def _fence(self) -> None:
        if not self._gate.is_fenced:
            log.error("Executor %s was taken over by another one and stops; its runs go on elsewhere.", self.id)
        self._gate.is_fenced = True
        if self._has_launched:
            dbos_sdk.stop_taking_work()

    def _take_over(self, connection: psycopg.Connection[Any], others: list[_Other]) -> None:
        gone = [each for each in others if each.is_free and self._is_gone(connection, each)]
        me = LiveExecutor(executor_id=self.id, version=self._version, takes_runs=self._takes_runs)
        live = {me, *(each.live() for each in others if each not in gone)}

        def look_at_versions() -> None:
            if self._versions is not None:
                self._versions.look(live)

        self._do(connection, look_at_versions)
        if not self._takes_runs and any(each.takes_runs and each.version == self._version for each in live):
            return  # who takes runs takes them over too; this process only when nobody else is there
        for each in gone:
            if self._try_lock(each.id):
                try:
                    self._adopt(connection, each.id, has_left=each.has_left)
                finally:
                    connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", [LOCK_PREFIX + each.id])

    def _is_gone(self, connection: psycopg.Connection[Any], other: _Other) -> bool:
        """Whether an executor whose lock is free is to be taken over now; one that may come back has its time."""
        if other.has_left or (other.process_space == process_space() and not _is_alive(other.pid)):
            return True
        if other.free_seconds is None:
            connection.execute("update timestep.executors set free_since = now() where id = %s", [other.id])
            return False
        patience = self._settings.takeover_seconds
        return other.free_seconds >= patience and other.up_seconds >= patience

    def _adopt(self, connection: psycopg.Connection[Any], executor_id: str, *, has_left: bool) -> None:
        def adopt_other_versions() -> None:
            if self._versions is not None:
                self._versions.adopt(executor_id)

        def leave_rate_limits() -> None:
            dbos_recovery.leave_rate_limits(executor_id, SEGMENT_QUEUE)

        def count_starts_again() -> None:
            dbos_recovery.count_starts_again(executor_id, has_left=has_left)

        for preparation in (adopt_other_versions, leave_rate_limits, count_starts_again):
            self._do(connection, preparation)
        count = dbos_recovery.recover_executors([executor_id])
        left = dbos_recovery.pending_of_executor(executor_id)
        if count:
            log.warning("Executor %s is gone; %d of its runs go on here.", executor_id, count)
        if not left:
            connection.execute("delete from timestep.executors where id = %s", [executor_id])

    def _try_lock(self, executor_id: str) -> bool:
        assert self._connection is not None
        row = self._connection.execute(
            "select pg_try_advisory_lock(hashtextextended(%s, 0))", [LOCK_PREFIX + executor_id]
        ).fetchone()
        return bool(row and row[0])

    def _connect(self) -> psycopg.Connection[Any]:
        options: dict[str, Any] = {
            "autocommit": True,
            "connect_timeout": 5,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        }
        if self._database.creator is not None:
            connection = self._database.creator()
            connection.autocommit = True
            return connection
        connection = psycopg.connect(self._database.url, **options)
        # Else the server would hold the lock of a machine that lost its network or its power for hours.
        connection.execute(_NOTICE_SOON)
        return connection


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a zombie has ended: its parent has not looked yet
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")
