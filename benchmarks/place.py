"""Where a benchmark runs: a Postgres of its own in a temporary folder, and the environment that leads to it."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from timestep.embedded_postgres import EmbeddedPostgres

NAME = "benchmark"
IDLE_SECONDS = 10

P = TypeVar("P", bound="Place")


class Place:
    """The server, and what is asked of it."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self.url = server.url(NAME)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.conninfo(NAME), autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def log_statements(self, which: str) -> None:
        """Let the server log `all` statements or `none`."""
        self.execute(f"alter system set log_statement = '{which}'")
        self.execute("select pg_reload_conf()")
        time.sleep(1)  # until every backend has read it

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.server.conninfo(NAME), autocommit=True) as connection:
            connection.execute(statement.encode())

    def idle_statements(self) -> float:
        """Return the statements a second that reach the server while nothing is asked of it."""
        log = self.server.status().log_path
        self.log_statements("all")
        before = log.stat().st_size
        time.sleep(IDLE_SECONDS)
        self.log_statements("none")
        with log.open("rb") as lines:
            lines.seek(before)
            text = lines.read()
        return sum(text.count(mark) for mark in (b"LOG:  statement: ", b"LOG:  execute ")) / IDLE_SECONDS


def folder() -> Path:
    """Return the folder that the processes of a benchmark share."""
    return Path(os.environ["BENCHMARK_FOLDER"])


def rss_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process, this one when absent."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def quantiles(values: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    ordered = sorted(values)
    return {"p50": round(statistics.median(ordered), 1), "p99": round(ordered[int(len(ordered) * 0.99)], 1)}


@contextlib.contextmanager
def place_for(kind: type[P]) -> Iterator[P]:
    """A server in a temporary folder, and the environment that leads to it."""
    with tempfile.TemporaryDirectory(prefix="timestep-benchmark-") as place:
        Path(place).chmod(0o755)
        server = EmbeddedPostgres(Path(place).resolve() / "postgres" / "18")
        server.ensure(pin=True)
        server.ensure_database(NAME)
        os.environ |= {"PG_CONNECTION_URI": server.url(NAME), "BENCHMARK_FOLDER": place, "TIMESTEP_APP_NAME": NAME}
        try:
            yield kind(server)
        finally:
            server.release()
            server.stop()
