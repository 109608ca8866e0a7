"""The claim of a plain run on the stored snapshot that it goes on from: a snapshot resumes once.

While the run lasts a lock is held, which ends with the process. When the run has returned, ended or interrupted again,
it is noted with the snapshot. A run that raised notes nothing: it may be started again.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import psycopg
from agents import RunResultStreaming
from dbos import DBOS

from timestep.durable.states.origin import Origin
from timestep.run_state.state_file import held_file
from timestep.store.connection import Database
from timestep.store.process_database import open_current_database, open_other_database
from timestep.store.run_states import already_resumed, check_unclaimed, find_snapshot, let_go, note_resumed, try_hold

log = logging.getLogger("timestep")


class Claim:
    """What a run holds while it goes on from a snapshot; `settle` notes that it has."""

    def __init__(self, origin: Origin | None, *, by: str | None = None) -> None:
        self._origin = origin if origin is not None and origin.snapshot_id is not None else None
        self._by = by if by is not None else DBOS.workflow_id
        self._held = contextlib.ExitStack()
        self._note: Any = None
        self._lock: tuple[Database, psycopg.Connection[Any]] | None = None

    async def hold(self) -> Claim:
        """Hold the snapshot; nothing for a state that was never stored.

        Raises:
            RunStateNotFoundError: the snapshot is not there any more.
            SnapshotAlreadyResumed: somebody goes on from it, or has.
        """
        try:
            if self._origin is not None and self._origin.path is not None:
                self._note = self._held.enter_context(
                    held_file(self._origin.path, self._origin.snapshot_id or 0, by=self._by)
                )
            elif self._origin is not None:
                await self._hold_row(self._origin.snapshot_id or 0, self._origin.database_url)
        except BaseException:
            self.give_back()
            raise
        return self

    async def settle(self) -> None:
        """Note that the run went on from the snapshot, and let it go. May be called twice."""
        note, self._note = self._note, None
        try:
            if isinstance(note, Database):
                snapshot_id = self._origin.snapshot_id if self._origin is not None else None
                assert snapshot_id is not None
                if not await note.run_until_done(note_resumed, snapshot_id, by=self._by):
                    log.warning("Snapshot %s was resumed elsewhere too: its lock was lost meanwhile.", snapshot_id)
            elif note is not None:
                note()
        finally:
            await self.let_go()

    async def let_go(self) -> None:
        """Let the snapshot go, for another run to continue from at once. May be called twice."""
        lock, self._lock = self._lock, None
        try:
            if lock is not None:
                database, connection = lock
                await database.run_apart(lambda: let_go(connection))
        finally:
            self.give_back()

    def give_back(self) -> None:
        """Let the snapshot go as soon as the server notices that its connection ends. May be called twice."""
        self._lock = None
        self._held.close()

    async def _hold_row(self, snapshot_id: int, url: str | None) -> None:
        if url is None:
            database = await open_current_database()
        else:
            database = await open_other_database(url)
            self._held.callback(database.close)
        connection = await database.run_apart(database.connect_alone)
        self._held.callback(connection.close)
        self._lock = database, connection
        if not await database.run_apart(lambda: try_hold(connection, snapshot_id)):
            snapshot = await database.run_until_done(find_snapshot, snapshot_id)
            raise already_resumed(snapshot, snapshot_id)
        await database.run_until_done(check_unclaimed, snapshot_id, by=self._by)
        self._note = database


@contextlib.asynccontextmanager
async def claimed(origin: Origin | None, *, by: str | None = None) -> AsyncGenerator[None]:
    """Hold a snapshot while a run goes on from it; noted as resumed when the block ends without an exception."""
    claim = await Claim(origin, by=by).hold()
    try:
        yield
    except GeneratorExit:
        claim.give_back()
        raise
    except BaseException:
        await claim.let_go()
        raise
    await claim.settle()


def settled_by_stream(result: RunResultStreaming, claim: Claim) -> RunResultStreaming:
    """Return a streamed result whose claim is settled when all of its events have been read.

    A stream that raises gives the claim back. One that nobody reads to its end holds it as long as the result lives.
    """
    weakref.finalize(result, claim.give_back)
    read = result.stream_events

    async def stream_events() -> AsyncIterator[Any]:
        try:
            async for event in read():
                yield event
        except Exception:
            await claim.let_go()
            raise
        if result.run_loop_exception is None:
            await claim.settle()
        else:
            await claim.let_go()

    vars(result)["stream_events"] = stream_events
    return result
