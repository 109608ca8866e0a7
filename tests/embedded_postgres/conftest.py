"""Real servers in folders of their own, used by real processes that really die."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import timestep
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.embedded_postgres.account import choose_account
from timestep.embedded_postgres.binaries import copy_once
from timestep.embedded_postgres.layout import Layout
from timestep.embedded_postgres.locks import Deadline

PYTHON_PATH = os.pathsep.join([str(Path(timestep.__path__[0]).parent), os.environ.get("PYTHONPATH", "")])
MEMORY_NEEDED_BYTES = 2_000_000_000
PROGRAM = """
import os, random, sys, time
from pathlib import Path
from timestep.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
{before}
server.ensure()
print(server.status().pid, flush=True)
{after}
"""


def wait_until(claim: Callable[[], object], what: str) -> None:
    """Wait for a state; the limit only ends a test that hangs."""
    limit = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < limit, f"never happened: {what}"
        time.sleep(0.005)


class Child:
    """A Python process that works with the server of a directory."""

    def __init__(self, directory: Path, code: str, environment: dict[str, str], prefix: list[str]) -> None:
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, "-c", code, str(directory)],
            stdin=subprocess.PIPE,  # its end tells the child to go on, if it waits for that
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PYTHON_PATH, **environment},
        )

    def line(self) -> str:
        """Return the next line it prints; fail with its errors when it ends instead."""
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        line = self.popen.stdout.readline().strip()
        assert line, self.popen.stderr.read()
        return line

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        _, errors = self.popen.communicate()
        assert self.popen.returncode <= 0, errors
        return self.popen.returncode

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal."""
        self.popen.send_signal(number)
        self.popen.communicate()


class Drill:
    """Servers and processes of one test. All are gone when it ends."""

    def __init__(self, root: Path, programs: Path, cluster: Path) -> None:
        self.root = root
        self.programs = programs
        self.cluster = cluster
        self.directory = root / "postgres" / "18"
        self.python_path = PYTHON_PATH
        self._servers: dict[Path, EmbeddedPostgres] = {}
        self._children: list[Child] = []

    def server(
        self, directory: Path | None = None, *, has_programs: bool = True, has_cluster: bool = True
    ) -> EmbeddedPostgres:
        """Name a server. Programs and an empty cluster are put there before, which saves most tests' time."""
        server = EmbeddedPostgres(directory or self.directory)
        if server.directory in self._servers:
            return server
        self._servers[server.directory] = server
        target = server.directory.parent / self.programs.name
        if has_programs and not target.exists():
            shutil.copytree(self.programs, target, copy_function=os.link)
        if has_programs and has_cluster:
            server.directory.mkdir(mode=0o700, exist_ok=True)
            shutil.copytree(self.cluster, server.directory / "data")
        return server

    def child(
        self,
        code: str = "",
        *,
        before: str = "",
        directory: Path | None = None,
        environment: dict[str, str] | None = None,
        prefix: list[str] | None = None,
    ) -> Child:
        """Start a process that ensures the server, prints the server's process id and runs the code."""
        server = self.server(directory)
        child = Child(server.directory, self.program(before, code), environment or {}, prefix or [])
        self._children.append(child)
        return child

    def program(self, before: str, code: str) -> str:
        """Return what a child runs; its directory is the first argument."""
        return PROGRAM.format(before=before, after=code)

    def holder(self, directory: Path | None = None) -> Child:
        """Start a process that holds the server until it is killed, and wait until it does."""
        child = self.child("time.sleep(1000)", directory=directory)
        child.line()
        return child

    def postmaster(self) -> int:
        """Return the live server process of the default directory."""
        pid = self.server().status().pid
        assert pid is not None
        return pid

    def kill_postmaster(self) -> int:
        """Kill the server process the hard way and wait until it is dead."""
        pid = self.postmaster()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_dead(pid), "postmaster dead")
        return pid

    def crash(self) -> None:
        """Kill the server process if there is one, without waiting."""
        pid = self.server().status().pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def is_stopped(self) -> bool:
        return self.server().status().state == "stopped"

    def close(self) -> None:
        for child in self._children:
            child.popen.kill()
            child.popen.communicate()
        for server in self._servers.values():
            server.release()
            server.stop()
            shutil.rmtree(Layout(directory=server.directory).socket_folder, ignore_errors=True)
            shutil.rmtree(server.directory.parent, ignore_errors=True)


def is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="session")
def disk() -> Path:
    """Where the servers lie: in memory when there is plenty, which is several times faster."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_NEEDED_BYTES
    return memory if has_room else Path("/tmp").resolve()


@pytest.fixture(scope="session")
def programs(disk: Path) -> Iterator[Path]:
    """The wheel's programs, copied once for all tests."""
    with tempfile.TemporaryDirectory(prefix="timestep-test-", dir=disk) as folder:
        yield copy_once(Path(folder), major=None, deadline=Deadline(60)).root


@pytest.fixture(scope="session")
def cluster(programs: Path) -> Path:
    """An empty cluster, made once; small and without fsync, for speed."""
    server = EmbeddedPostgres(programs.parent / "18")
    server.ensure()
    server.release()
    data = server.directory / "data"
    shrink = [str(server.binaries_path / "pg_resetwal"), "--wal-segsize=1", "-D", str(data)]
    assert choose_account().run(shrink).returncode == 0
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("fsync = off\nmin_wal_size = 2MB\n")
    return data


@pytest.fixture
def drill(disk: Path, programs: Path, cluster: Path) -> Iterator[Drill]:
    with tempfile.TemporaryDirectory(prefix="timestep-test-", dir=disk) as folder:
        drill = Drill(Path(folder), programs, cluster)
        yield drill
        drill.close()


@pytest.fixture
def open_drill(drill: Drill) -> Drill:
    """A drill in a folder that every user can enter."""
    drill.root.chmod(0o755)
    return drill


@pytest.fixture
def until() -> Callable[[Callable[[], object], str], None]:
    return wait_until
