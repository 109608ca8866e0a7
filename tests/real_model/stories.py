"""The command line in processes of its own, and what they left in the database."""

from __future__ import annotations

import asyncio
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psycopg.rows import dict_row

from timestep.client.connector import connect_client
from timestep.client.events import stream_run
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.store.connection import open_database

APPLICATION = "stories"
LIMIT_SECONDS = 120


def wait_until(claim: Callable[[], Any], what: str) -> Any:
    """Wait for a state and return it; the limit only ends a test that hangs."""
    limit = time.monotonic() + LIMIT_SECONDS
    while not (found := claim()):
        assert time.monotonic() < limit, f"never happened: {what}"
        time.sleep(0.02)
    return found


class Stories:
    """The command line in processes of its own, and what they left in the database."""

    def __init__(self, server: EmbeddedPostgres, environment: dict[str, str], folder: Path) -> None:
        self.server, self.environment, self.folder = server, environment, folder
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `timestep WORDS...`."""
        with (self.folder / f"stderr-{len(self.processes)}").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "timestep", *words],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.processes.append(process)
        return process

    def run(self, *words: str) -> str:
        """Run `timestep WORDS...` to its end and return what it printed."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 0, self.errors()
        return output

    def first_words(self, process: subprocess.Popen[str]) -> str:
        """Return what a process prints first."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], LIMIT_SECONDS)
        assert ready, f"nothing was printed: {self.errors()}"
        return process.stdout.read(1)

    def errors(self) -> str:
        """Return what all the processes wrote to stderr."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("stderr-*")))

    def query(self, text: str, *parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with self.server.connect(APPLICATION, autocommit=True, row_factory=dict_row) as connection:
            return list(connection.execute(text, parameters).fetchall())

    def wait_for(self, run_id: str, status: str) -> None:
        """Wait until a run has a status."""
        wait_until(
            lambda: self.query("select 1 from timestep.runs where id = %s and status = %s", run_id, status),
            f"{run_id} has {status}: {self.errors()}",
        )

    def steps(self, run_id: str) -> list[str]:
        """Return the names of the recorded steps of a run."""
        rows = self.query("select function_name from dbos.operation_outputs where workflow_uuid = %s", run_id)
        return [row["function_name"] for row in rows]

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the events of a run that has ended."""

        async def read() -> list[dict[str, Any]]:
            return [event async for event in stream_run(run_id, raw=True, database=database, client=client)]

        database = open_database(self.server.url(APPLICATION), application=APPLICATION)
        client = connect_client(database, name=APPLICATION)
        try:
            return asyncio.run(asyncio.wait_for(read(), LIMIT_SECONDS))
        finally:
            client.destroy()
            database.close()

    def end(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
