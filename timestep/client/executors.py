"""Executors as seen from outside, and the runs that none of them can take."""

from __future__ import annotations

from datetime import UTC, datetime

from dbos import WorkflowStatus

from timestep.client.connector import Connector
from timestep.ids import SEGMENT_QUEUE, segment_id
from timestep.records import Executor, StrandedRun, WhyStranded
from timestep.store import executors as store
from timestep.store.runs import WaitingRun, waiting_runs
from timestep.words import CONFIGURATION_MISSING, HISTORY_CHANGED

MOST_RUN_IDS = 100
"""Run ids of one executor that are listed."""

PAGE_RUNS = 1000
DBOS_QUEUES = "_dbos_"
"""Beginning of the names of DBOS's own queues, to which every executor listens."""

START = "timestep worker MODULE"


def list_executors(connector: Connector) -> list[Executor]:
    """Return every executor that has a row, the oldest first; those that are gone until they are taken over."""
    running = connector.database.run_sync(store.runs_on_executors, limit=MOST_RUN_IDS)
    now = datetime.now(UTC)
    return [
        Executor(
            executor_id=row.id,
            application_version=row.application_version,
            host=row.host,
            pid=row.pid,
            is_alive=is_alive,
            agents=row.agents,
            queues=row.queues,
            running=running.get(row.id, (0, []))[0],
            run_ids=running.get(row.id, (0, []))[1],
            started_at=row.started_at or now,
            last_seen_at=now if is_alive else row.free_since if row.free_since and row.free_since.year > 1970 else None,
        )
        for row, is_alive in connector.database.run_sync(store.list_executors)
    ]


def list_live_executors(connector: Connector, *, agent: str | None = None) -> list[Executor]:
    """Return the executors that are alive, the oldest first; with `agent` those that take its runs."""
    return [each for each in list_executors(connector) if each.is_alive and (agent is None or agent in each.agents)]


def list_stranded_runs(connector: Connector, *, limit: int = 100) -> list[StrandedRun]:
    """Return the runs that no live executor can take, in the order of their ids.

    A run that waits for a person is none of them, nor is one that is executed now or will be taken over.
    """
    look = _Look(connector)
    found: list[StrandedRun] = []
    after = ""
    while len(found) < limit and (page := connector.database.run_sync(waiting_runs, after=after, limit=PAGE_RUNS)):
        after = page[-1].run_id
        current = [segment_id(run.run_id, run.segment) for run in page]
        listed = connector.dbos.list_workflows(workflow_ids=current, load_input=False, load_output=False)
        workflows = {workflow.workflow_id: workflow for workflow in listed}
        stranded = (look.stranded(run, workflows.get(key)) for run, key in zip(page, current, strict=True))
        found += [each for each in stranded if each is not None]
    return found[:limit]


class _Look:
    """The executors and queues as they are at one moment."""

    def __init__(self, connector: Connector) -> None:
        live = connector.database.run_sync(store.list_live_executors)
        self._ids = {each.id for each in live}
        self._takers = [each for each in live if each.queues is None or each.queues]
        self._queues = {queue.name for queue in connector.dbos.list_queues()}
        ages = {each["version_name"]: each["created_at"] for each in connector.dbos.list_application_versions()}
        versions = {each.application_version for each in self._takers}
        self._newest = max(versions, key=lambda version: (ages.get(version, 0), version), default=None)

    def stranded(self, run: WaitingRun, workflow: WorkflowStatus | None) -> StrandedRun | None:
        """Return what keeps every live executor from taking a run, None when one has it or can take it."""
        if run.status == "interrupted" and run.reason == HISTORY_CHANGED:
            return self._of_other_code(run)
        if workflow is not None and workflow.status == "PENDING" and workflow.executor_id in self._ids:
            return None
        if not self._takers:
            return _stranded(run, "executor", "no executor that takes runs is alive", f"Start one: `{START}`.")
        if not any(run.agent in each.agents for each in self._takers):
            detail = f"no live executor has the agent {run.agent!r}"
            return _stranded(run, "agent", detail, f"Start one with a module that has it: `{START}`.")
        if run.reason == CONFIGURATION_MISSING:  # one that has it would have taken the run by now
            return _without_code(run)
        return self._without_listener(run, workflow)

    def _without_listener(self, run: WaitingRun, workflow: WorkflowStatus | None) -> StrandedRun | None:
        queue = (workflow.queue_name if workflow is not None else run.queue) or SEGMENT_QUEUE
        version = workflow.app_version if workflow is not None else None
        if queue == SEGMENT_QUEUE or queue.startswith(DBOS_QUEUES):
            return None
        takers = [each for each in self._takers if each.application_version == version] or [
            each for each in self._takers if each.application_version == self._newest
        ]
        if queue in self._queues and any(each.queues is None or queue in each.queues for each in takers):
            return None
        known = "" if queue in self._queues else ", and it is not there"
        detail = f"no live executor listens to the queue {queue!r}{known}"
        return _stranded(run, "queue", detail, f"Start one that listens to every queue: `{START}`.")

    def _of_other_code(self, run: WaitingRun) -> StrandedRun:
        own = (run.version or "").rpartition(":")[2]
        resume = f"`timestep runs resume {run.run_id}`"
        if any(each.application_version == run.version for each in self._takers):
            return _stranded(run, "version", f"its steps did not fit; version {own} lives", f"Let it go on: {resume}.")
        start = f"`TIMESTEP_APPLICATION_VERSION={own} {START}`"
        hint = f"Start its version again, {start}, or one whose code fits, then {resume}."
        return _stranded(run, "version", f"its steps fit version {own}, which no live executor has", hint)


def _without_code(run: WaitingRun) -> StrandedRun:
    fields = " and ".join(f"run_config.{name}" for name in run.code)
    given = ", ".join(f"{name}=..." for name in run.code)
    register = f"register_agents(agent, run_config=RunConfig({given}))"
    return _stranded(
        run,
        "configuration",
        f"no live executor has the {fields} of the agent {run.agent!r}",
        f"Start one with a module that calls {register}: `{START}`.",
    )


def _stranded(run: WaitingRun, why: WhyStranded, detail: str, hint: str) -> StrandedRun:
    return StrandedRun(run_id=run.run_id, agent=run.agent, status=run.status, why=why, detail=detail, hint=hint)
