"""The database, the side log and the processes of one recovery test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

import timestep
from timestep.embedded_postgres import EmbeddedPostgres

HERE = Path(__file__).parent
LIMIT_SECONDS = 40


def wait_until(claim: Callable[[], object], what: str, *, seconds: float = LIMIT_SECONDS) -> None:
    """Wait for a state; the limit only ends a test that hangs."""
    limit = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < limit, f"never happened: {what}"
        time.sleep(0.02)


class Warm:
    """The process from which the executors are forked."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(HERE), str(Path(timestep.__path__[0]).parent), os.environ.get("PYTHONPATH", "")])
        self.codes: dict[int, int] = {}
        self._popen = subprocess.Popen(
            [sys.executable, str(HERE / "warm.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path, "OPENAI_AGENTS_DISABLE_TRACING": "1", "TIMESTEP_PROBE_LOCAL": "0"},
        )  # fmt: skip
        self._read_until("ready")

    def fork(self, order: dict[str, Any]) -> int:
        """Start a child and return its pid."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()
        return self._read_until("started")["started"]

    def code(self, pid: int) -> int:
        """Wait for the end of a child and return its exit code."""
        while pid not in self.codes:
            self._read_until("ended")
        return self.codes[pid]

    def close(self) -> None:
        self._popen.kill()
        self._popen.communicate()

    def _read_until(self, key: str) -> dict[str, Any]:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            message = json.loads(line)
            if "ended" in message:
                self.codes[message["ended"]] = message["code"]
            if key in message:
                return message
        raise AssertionError("the warm process is gone")


class Child:
    """One forked process."""

    def __init__(self, warm: Warm, pid: int, output: Path) -> None:
        self.warm, self.pid, self.output = warm, pid, output

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.pid not in self.warm.codes:
            with contextlib.suppress(ProcessLookupError):  # it ended, and the warm process has not said so yet
                os.kill(self.pid, signal.SIGKILL)
        self.warm.code(self.pid)

    def end(self) -> None:
        """Wait until it ends by itself; it must end well."""
        assert self.warm.code(self.pid) == 0, self.text()

    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text()


class Drill:
    """The database, the side log and the children of one test."""

    def __init__(self, folder: Path, server: EmbeddedPostgres, warm: Warm, data_directory: Path, name: str) -> None:
        self.folder, self.server, self.warm = folder, server, warm
        self.database = name
        self.children: list[Child] = []
        self._environment = {
            "TIMESTEP_DATA_DIR": str(data_directory), "TIMESTEP_APP_NAME": self.database,
            "RECOVERY_FOLDER": str(folder),
        }  # fmt: skip
        (folder / "side.log").touch()

    def start(
        self,
        function: str,
        *,
        stops: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        **arguments: Any,
    ) -> Child:
        """Fork a child that executes a function of `programs.py`; `stops` says at which point each run is held."""
        output = self.folder / f"child_{len(self.children) + 1}.txt"
        variables = {**self._environment, "RECOVERY_STOPS": json.dumps(stops or {}), **(environment or {})}
        pid = self.warm.fork(
            {"function": function, "arguments": arguments, "environment": variables, "output": str(output)}
        )
        self.children.append(Child(self.warm, pid, output))
        return self.children[-1]

    def lines(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the lines of the side log; `after`: without the first so many."""
        text = (self.folder / "side.log").read_text()
        whole = text[: text.rfind("\n") + 1]  # a line over the end of a page is seen in two parts
        return [json.loads(line) for line in whole.splitlines()[after:]]

    def wait_lines(self, claim: Callable[[list[dict[str, Any]]], object], what: str, *, child: Child) -> None:
        """Wait until the side log is as claimed; a child that ends too early fails the test with what it printed."""

        def holds() -> object:
            found = claim(self.lines())
            assert found or (os.path.exists(f"/proc/{child.pid}") and child.pid not in self.warm.codes), child.text()
            return found

        try:
            wait_until(holds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{child.text()[-4000:]}") from None

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.server.conninfo(self.database), autocommit=True) as connection:
            return connection.execute(query.encode(), arguments).fetchall()

    def execute(self, statement: str, *arguments: Any) -> None:
        with psycopg.connect(self.server.conninfo(self.database), autocommit=True) as connection:
            connection.execute(statement.encode(), arguments)

    def wait_status(self, run: str, *statuses: str) -> None:
        """Wait until the row of a run has one of these status words."""
        wait_until(lambda: self.status(run) in statuses, f"{run} {statuses}, it is {self.status(run)}")

    def status(self, run: str) -> str | None:
        """Return the status word of a run."""
        found = self.rows("select status from timestep.runs where id = %s", run)
        return found[0][0] if found else None

    def workflow_status(self, workflow: str) -> str | None:
        """Return DBOS's status word of a segment."""
        found = self.rows("select status from dbos.workflow_status where workflow_uuid = %s", workflow)
        return found[0][0] if found else None

    def wait_reached(self, *runs: str, child: Child) -> None:
        """Wait until the runs are held at their points in this child."""

        def are_there(lines: list[dict[str, Any]]) -> bool:
            return {line["run"] for line in lines if line["what"] == "reached" and line["pid"] == child.pid} >= set(
                runs
            )

        self.wait_lines(are_there, f"{runs} reached", child=child)

    def wait_launched(self, child: Child) -> None:
        """Wait until a child is an executor."""
        self.wait_lines(
            lambda lines: any(line["what"] == "launched" and line["pid"] == child.pid for line in lines),
            "launched", child=child,
        )  # fmt: skip

    def started(self, run: str) -> list[str]:
        """Return the names of the step bodies of a run that have begun, in that order."""
        return [
            line["name"] for line in self.lines()
            if line["run"].partition("~")[0] == run and line["what"] == "start" and line["kind"] == "step"
        ]  # fmt: skip

    def release(self, child: Child | None = None) -> None:
        """Let what is held at a point go on, in one child or in all."""
        (self.folder / ("release" if child is None else f"release_{child.pid}")).touch()

    def kill_server(self) -> None:
        """kill -9 of the postmaster."""
        pid = self.server.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for child in self.children:
            child.kill()
