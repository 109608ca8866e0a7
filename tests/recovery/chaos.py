"""What the chaos test does to its executors, and what it expects of the runs in the end."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from drill import Child, Drill

from timestep.client import queues
from timestep.client.connector import Connector
from timestep.client.executors import list_stranded_runs
from timestep.ids import segment_id
from timestep.records import RunRequest
from timestep.store.connection import open_database

QUEUE = "chaos"
EXECUTORS = 3
RUNS_OF_A_SESSION = 4
ITEMS = {
    "porter": ["user", "function_call", "function_call_output", "function_call", "function_call_output", "assistant"],
    "till": [
        "user", "function_call", "function_call", "function_call", "function_call_output", "function_call_output",
        "function_call_output", "function_call", "function_call_output", "assistant",
    ],
}  # fmt: skip
"""Session items of a run, in their order."""

DECIDE = """
select timestep.decide(id, case call_id when 'pay_1' then 'approved' else 'rejected' end, 'chaos')
from timestep.approvals where status = 'open'"""


@dataclass(kw_only=True)
class Chaos:
    """Executors that are killed, paused, ended and started, on a server that is killed, at random."""

    drill: Drill
    dice: random.Random
    takeover_seconds: float
    pause_seconds: float
    paused: dict[int, tuple[Child, float]] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)
    executors: list[Child] = field(default_factory=list)

    def start_runs(self, count: int) -> dict[str, str]:
        """Queue runs, one in three of which waits for a person; return the agent of each."""
        agents = {f"run-{number}": "till" if number % 3 == 2 else "porter" for number in range(count)}
        with self.desk() as connector:
            connector.dbos.register_queue(QUEUE, polling_interval_sec=0.25, on_conflict="never_update")
            for number, (run, agent) in enumerate(agents.items()):
                session = f"shared-{number // (3 * RUNS_OF_A_SESSION)}" if agent == "porter" else f"own-{number}"
                request = RunRequest(
                    run_id=run, agent=agent, input_items=[{"role": "user", "content": "carry"}], session_id=session
                )
                queued = queues.queued_run(request, application=self.drill.database, queue=QUEUE)
                queues.enqueue_run(connector, queued)
        return agents

    @contextlib.contextmanager
    def desk(self) -> Iterator[Connector]:
        """The way of this process, which executes nothing, to the runs."""
        database = open_database(self.drill.server.url(self.drill.database), application=self.drill.database)
        connector = Connector(database, application=self.drill.database)
        try:
            yield connector
        finally:
            connector.close()
            database.close()

    def rage(self, seconds: float) -> None:
        """Do harm for so many seconds, and keep the executors at their number."""
        ends_at = time.monotonic() + seconds
        harm = [self._kill, self._kill, self._pause, self._pause, self._end, self._kill_server]
        while time.monotonic() < ends_at:
            self.keep_going()
            self.dice.choice(harm)()
            wakes_at = time.monotonic() + self.dice.uniform(0.3, 2.0)
            while time.monotonic() < min(wakes_at, ends_at):
                self.keep_going()
                time.sleep(0.1)

    def calm(self) -> None:
        """Let every paused executor go on."""
        for child, _ in self.paused.values():
            child.send(signal.SIGCONT)
        self.paused.clear()

    def keep_going(self) -> None:
        """Decide what runs wait for, wake who has slept long enough, and start executors where some are missing."""
        for pid, (child, until) in list(self.paused.items()):
            if time.monotonic() > until:
                del self.paused[pid]
                child.send(signal.SIGCONT)
        self.executors = [child for child in self.executors if self._is_there(child)]
        while len(self.executors) < EXECUTORS:
            environment = {"TIMESTEP_TAKEOVER_SECONDS": str(self.takeover_seconds)}
            is_far = self.dice.random() < 0.5
            self.executors.append(self.drill.start("chaos_executor", environment=environment, is_far=is_far))
            self.happened["started"] += 1
        with contextlib.suppress(psycopg.OperationalError):  # the server was killed
            self.drill.execute(DECIDE)

    @staticmethod
    def _is_there(child: Child) -> bool:
        return Path(f"/proc/{child.pid}").exists()

    def _chosen(self) -> Child | None:
        awake = [child for child in self.executors if child.pid not in self.paused and self._is_there(child)]
        return self.dice.choice(awake) if awake else None

    def _kill(self) -> None:
        if child := self._chosen():
            child.kill()
            self.happened["killed"] += 1

    def _end(self) -> None:
        if child := self._chosen():
            with contextlib.suppress(ProcessLookupError):
                child.send(signal.SIGTERM)
                self.happened["ended"] += 1

    def _pause(self) -> None:
        """Pause an executor; one in two of them loses its connections too, as in a partition."""
        child = self._chosen()
        if child is None or len(self.paused) == EXECUTORS - 1:
            return
        with contextlib.suppress(ProcessLookupError):
            child.send(signal.SIGSTOP)
            self.paused[child.pid] = (child, time.monotonic() + self.pause_seconds)
            self.happened["paused"] += 1
        if self.dice.random() < 0.5:
            return
        with contextlib.suppress(psycopg.OperationalError):
            for (backend,) in self.drill.rows(
                "select l.pid from pg_locks l join timestep.executors e on e.pid = %s and l.locktype = 'advisory' "
                "and l.objid::bigint = (hashtextextended('timestep-executor:' || e.id, 0) & 4294967295)", child.pid,
            ):  # fmt: skip
                self.drill.rows("select pg_terminate_backend(%s)", backend)
                self.happened["cut off"] += 1

    def _kill_server(self) -> None:
        if self.dice.random() < 0.5:
            return
        with contextlib.suppress(ProcessLookupError, AssertionError):
            self.drill.kill_server()
            self.happened["servers killed"] += 1


def problems(chaos: Chaos, agents: dict[str, str]) -> list[str]:
    """Return what is wrong when all is over, in words."""
    drill = chaos.drill
    found: list[str] = []
    runs = "select id, status, reason, attempt, error from timestep.runs where status <> 'succeeded'"
    for run, status, reason, attempt, error in drill.rows(runs):
        found.append(f"{run} is {status}: {reason} after {attempt} attempts, {error}")
    workflows = "select workflow_uuid, status from dbos.workflow_status where status <> 'SUCCESS'"
    for workflow, status in drill.rows(workflows):
        found.append(f"workflow {workflow} is {status}")
    with chaos.desk() as connector:
        found += [f"stranded: {each}" for each in list_stranded_runs(connector)]
    return found + list(_repeated(drill)) + list(_sessions(drill, agents)) + list(_rows(drill, agents))


def _repeated(drill: Drill) -> Iterator[str]:
    """What ran again after it was recorded, or was recorded twice."""
    kept: set[tuple[str, int]] = set()
    for line in drill.lines():
        step = line["run"], line.get("step")
        if line["what"] == "start" and line["kind"] != "step" and step in kept:
            yield f"{line['run']}: the body of {line['name']} began in {line['pid']} after its result was recorded"
        if line["what"] == "kept":
            if step in kept:
                yield f"{line['run']}: step {line['step']} was recorded twice"
            kept.add(step)


def _sessions(drill: Drill, agents: dict[str, str]) -> Iterator[str]:
    """Sessions that lack an item, have one twice, or have those of two runs mixed."""
    query = """select session_id, run_id, coalesce(item ->> 'role', item ->> 'type') from timestep.session_items
               order by session_id, position"""
    seen: set[str] = set()
    for (session, run), items in itertools.groupby(drill.rows(query), lambda row: (row[0], row[1])):
        kinds = [kind for _, _, kind in items]
        if run in seen:
            yield f"{session}: the items of {run} are not together"
        seen.add(run)
        if agents[run] == "porter" and kinds != ITEMS["porter"]:
            yield f"{session}: {run} has {kinds}"
        if agents[run] == "till" and Counter(kinds) != Counter(ITEMS["till"]):
            yield f"{session}: {run} has {kinds}"
    yield from (f"{run} has no items" for run in agents.keys() - seen)


def _rows(drill: Drill, agents: dict[str, str]) -> Iterator[str]:
    """Steps, usage, tool calls and decisions of each run, each once."""
    steps = "select count(*), count(distinct function_name) from dbos.operation_outputs where workflow_uuid = any(%s)"
    usage = "select count(*), sum(requests) from timestep.usage where run_id = %s"
    calls = "select count(*), count(distinct call_key) from timestep.tool_calls where run_id = %s and error is null"
    asked = """select count(*) filter (where status in ('approved', 'rejected')), count(*) from timestep.approvals
               where run_id = %s"""
    for run, agent in agents.items():
        expected = {"porter": ((5, 5), (3, 3), (2, 2), (0, 0)), "till": ((6, 6), (3, 3), (3, 3), (2, 2))}[agent]
        left = (
            drill.rows(steps, [segment_id(run, 1), segment_id(run, 2)])[0],
            drill.rows(usage, run)[0],
            drill.rows(calls, run)[0],
            drill.rows(asked, run)[0],
        )
        if left != expected:
            yield f"{run} of {agent}: steps, usage, calls and approvals are {left}, not {expected}"
