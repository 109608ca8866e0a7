"""Snapshots in a JSON file, without a database: the same envelope, written whole or not at all.

The file is `{"format": "timestep.run_state", "version": 1, "snapshots": [...]}`, the newest snapshot last. In each,
`state` is the JSON text of the writer's RunState and `digest` the SHA-256 of that text; `digest_of_rest` is the SHA-256
of the compact JSON of the other fields, sorted by name, without `is_active`, `resumed_by` and `resumed_at`, which
change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from timestep.errors import RunStateNotFoundError, SnapshotAlreadyResumed, SnapshotDamagedError
from timestep.run_state.envelope import PLAIN, Snapshot

FORMAT = "timestep.run_state"
VERSION = 1
KEPT_SNAPSHOTS = 20
"""How many snapshots a file keeps; the oldest go first."""

T = TypeVar("T")
Entry = dict[str, Any]

_FIELDS = tuple(
    field.name for field in dataclasses.fields(Snapshot) if field.name not in ("is_intact", "resumed_by", "resumed_at")
)
_CHANGING = ("digest_of_rest", "is_active", "resumed_by", "resumed_at")


def save_to_file(path: Path, snapshot: Snapshot) -> int:
    """Add a snapshot to the file and return its id, which rises from 1. Safe against other writers.

    Raises:
        SnapshotDamagedError: the file is there and is not one of these; it is left as it is.
    """

    def add(entries: list[Entry]) -> int:
        number = 1 + max((entry["id"] for entry in entries), default=0)
        entries.append(_entry(dataclasses.replace(snapshot, id=number)))
        del entries[:-KEPT_SNAPSHOTS]
        return number

    return _change(path, add)


def load_from_file(path: Path, snapshot_id: int | None = None) -> Snapshot | None:
    """Return the newest snapshot that was not cleared, or the one of an id, cleared or not; None when there is none.

    Raises:
        SnapshotDamagedError: the file is truncated or edited.
    """
    for entry in reversed(_read(path)):
        if entry["id"] == snapshot_id or (snapshot_id is None and entry["is_active"]):
            return _snapshot(path, entry)
    return None


def clear_file(path: Path) -> None:
    """Keep the file's snapshots, but load them no longer. May be called twice."""

    def clear(entries: list[Entry]) -> None:
        for entry in entries:
            entry["is_active"] = False

    if path.exists():
        _change(path, clear)


@contextlib.contextmanager
def held_file(path: Path, snapshot_id: int, *, by: str | None) -> Generator[Callable[[], None]]:
    """Hold a file while a run goes on from one of its snapshots; yield what notes that the run has.

    The hold ends with the process too. `by` is the workflow that may go on from it again, if any.

    Raises:
        RunStateNotFoundError: the snapshot is not in the file any more.
        SnapshotAlreadyResumed: somebody goes on from it, or has.
    """
    with _locked(path, "resume", is_waiting=False) as is_held:
        if not is_held:
            raise SnapshotAlreadyResumed(f"Another run goes on from the state in {path} now.")
        entry = next((each for each in _read(path) if each["id"] == snapshot_id), None)
        if entry is None:
            raise RunStateNotFoundError(f"The snapshot {snapshot_id} is not in {path} any more.")
        if entry["resumed_by"] not in (None, by):
            who = "a plain run" if entry["resumed_by"] == PLAIN else f"the run {entry['resumed_by']!r}"
            raise SnapshotAlreadyResumed(
                f"The snapshot {snapshot_id} in {path} was resumed by {who} at {entry['resumed_at']}."
            )

        def note() -> None:
            def mark(entries: list[Entry]) -> None:
                for each in entries:
                    if each["id"] == snapshot_id:
                        each |= {"resumed_by": by or PLAIN, "resumed_at": datetime.now(UTC).isoformat()}

            _change(path, mark)

        yield note


def _entry(snapshot: Snapshot) -> Entry:
    entry: Entry = {name: getattr(snapshot, name) for name in _FIELDS}
    entry["state"] = json.dumps(snapshot.state)
    entry |= {"created_at": datetime.now(UTC).isoformat(), "digest": _sha256(entry["state"])}
    entry["digest_of_rest"] = _digest_of_rest(entry)
    return entry | {"is_active": True, "resumed_by": None, "resumed_at": None}


def _snapshot(path: Path, entry: Entry) -> Snapshot:
    try:
        state = json.loads(entry["state"])
        resumed_at = entry["resumed_at"] and datetime.fromisoformat(entry["resumed_at"])
        fields = {name: entry[name] for name in _FIELDS}
        is_intact = entry["digest"] == _sha256(entry["state"]) and entry["digest_of_rest"] == _digest_of_rest(entry)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    changed: dict[str, Any] = {
        "state": state,
        "resumed_by": entry["resumed_by"],
        "resumed_at": resumed_at,
        "is_intact": is_intact,
    }
    return Snapshot(**fields | changed)


def _read(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        document = json.loads(text)
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise ValueError(f"its format is {document['format']!r}, version {document['version']!r}")
        entries = cast("list[Entry]", document["snapshots"])
        for entry in entries:
            _ = entry["id"] + 0, entry["is_active"], entry["resumed_by"]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return entries


def _change(path: Path, change: Callable[[list[Entry]], T]) -> T:
    """Read, change and replace the file as one, also against other processes and against a crash."""
    with _locked(path, "lock", is_waiting=True):
        entries = _read(path)
        result = change(entries)
        document = {"format": FORMAT, "version": VERSION, "snapshots": entries}
        _replace(Path(os.path.realpath(path)), json.dumps(document, indent=1))
        return result


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _locked(path: Path, purpose: str, *, is_waiting: bool) -> Generator[bool]:
    """Hold a lock file beside the file, which stays; yield False when another holder has it and nobody waits."""
    place = Path(os.path.realpath(path))
    with (place.parent / f".{place.name}.{purpose}").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _digest_of_rest(entry: Entry) -> str:
    rest = {name: value for name, value in entry.items() if name not in (*_CHANGING, "state")}
    return _sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(path: Path, error: Exception) -> SnapshotDamagedError:
    return SnapshotDamagedError(
        f"The file {path} is not a run state that Timestep wrote, or not all of it: {error}.",
        hint="It was edited or cut. Put a copy of it back, or move it away and start the work again.",
    )
