"""One server for all tests here, one database a test, and executors that are forked from a warm process."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from comparison import Reference, journal, keys_of, left_by
from drill import Drill, Warm

from timestep.embedded_postgres import EmbeddedPostgres

MEMORY_NEEDED_BYTES = 2_000_000_000

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    warm = Warm()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def data_directory() -> Iterator[Path]:
    """Where the server lies: in memory when there is plenty, which is several times faster."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_NEEDED_BYTES
    with tempfile.TemporaryDirectory(prefix="timestep-test-", dir=memory if has_room else None) as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def server(data_directory: Path) -> Iterator[EmbeddedPostgres]:
    data_directory.chmod(0o755)
    server = EmbeddedPostgres(data_directory / "postgres" / "18")
    server.ensure()
    yield server
    server.release()
    server.stop()


@pytest.fixture(scope="session")
def new_drill(server: EmbeddedPostgres, warm: Warm, data_directory: Path) -> Iterator[Callable[[Path], Drill]]:
    """Make a drill with a database of its own, copied from one that is migrated."""
    drills: list[Drill] = []

    def make(folder: Path, template: str = "drill_template") -> Drill:
        name = f"drill_{next(_numbers)}"
        if template:
            with server.connect("postgres", autocommit=True) as connection:
                connection.execute(f"create database {name} template {template}".encode())
        drills.append(Drill(folder, server, warm, data_directory, name if template else "drill_template"))
        return drills[-1]

    with tempfile.TemporaryDirectory(prefix="timestep-test-") as folder:
        first = make(Path(folder), template="")
        first.start("launch").end()
        for table in ("timestep.executors", "dbos.queues", "dbos.application_versions"):
            first.execute(f"delete from {table}")
    yield make
    for drill in drills:
        drill.close()


@pytest.fixture
def drill(tmp_path: Path, new_drill: Callable[[Path], Drill]) -> Iterator[Drill]:
    drill = new_drill(tmp_path)
    yield drill
    drill.close()


@pytest.fixture(scope="session")
def reference(new_drill: Callable[[Path], Drill]) -> Iterator[Reference]:
    """The scenario without a kill."""
    with tempfile.TemporaryDirectory(prefix="timestep-test-") as folder:
        drill = new_drill(Path(folder))
        child = drill.start("sweep", runs=["reference"])
        child.end()
        assert drill.status("reference") == "succeeded", (drill.lines()[-1], child.text())
        found = Reference(
            left=left_by(drill, "reference"),
            history=journal(drill, "reference"),
            keys=keys_of(drill.lines(), "reference"),
        )
        drill.close()
        yield found
