"""Where the stream of each segment after the first begins: `segments`."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from timestep.store.tables import segments


@dataclass(frozen=True, kw_only=True)
class StreamSegment:
    """A segment with a stream. `copied_entries`: its own entries have this number and those after it."""

    number: int
    first_offset: int = 0
    copied_entries: int = 0


FIRST = StreamSegment(number=1)
"""The first segment, which has no row."""


def insert_stream_segment(connection: sa.Connection, run_id: str, begun: StreamSegment) -> None:
    """Store where a segment's stream begins; a row that is there stays."""
    connection.execute(insert(segments).values(run_id=run_id, **vars(begun)).on_conflict_do_nothing())


def list_stream_segments(connection: sa.Connection, run_id: str) -> dict[int, StreamSegment]:
    """Return the segments of a run that have begun a stream, without the first, by their numbers."""
    columns = segments.c.number, segments.c.first_offset, segments.c.copied_entries
    query = sa.select(*columns).where(segments.c.run_id == run_id).order_by(segments.c.number)
    return {row["number"]: StreamSegment(**row) for row in connection.execute(query).mappings()}
