"""What every executor does once a second for the runs of all: time limits, waiting agents, loose ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dbos import DBOSClient, WorkflowStatus

from timestep.approvals import expire_approvals
from timestep.durable import dbos_seam, in_flight
from timestep.durable.registry import registered_names
from timestep.durable.result import TIMEOUT
from timestep.errors import RunFailedError, RunStateError
from timestep.ids import run_of_segment, segment_id
from timestep.runs import cancel_run
from timestep.serializer import encode_error
from timestep.store.connection import Database
from timestep.store.runs import (
    mark_cancelled,
    mark_failed,
    mark_queued,
    overdue_runs,
    runs_waiting_for_agents,
    unfinished_segments,
)
from timestep.store.segments import enqueue_missing

LOOSE_ENDS_SECONDS = 10
"""How often runs are compared with their workflows, and how old a run must be for it."""


class Chores:
    """The chores of one executor."""

    def __init__(self, database: Database, client: DBOSClient, *, executor_id: str) -> None:
        self._database, self._client, self._executor_id = database, client, executor_id
        self._suspects: set[str] = set()
        self._missing: set[str] = set()
        self._compared_at = time.monotonic()

    def do_all(self) -> None:
        """Do what is due; every chore is harmless when another executor does it too."""
        self._cancel_overdue()
        expire_approvals(self._database)
        self._interrupt_cancelled()
        self._resume_waiting_for_agents()
        if time.monotonic() - self._compared_at >= LOOSE_ENDS_SECONDS:
            self._compared_at = time.monotonic()
            self._tie_loose_ends()
            self._suspects = dbos_seam.recover_lost(self._executor_id, self._suspects)

    def _cancel_overdue(self) -> None:
        for run_id in self._database.run_sync(overdue_runs):
            try:
                cancel_run(self._database, self._client, run_id, reason=TIMEOUT)
            except RunStateError:
                continue  # it ended at this moment

    def _interrupt_cancelled(self) -> None:
        if running := in_flight.workflows_in_flight():
            in_flight.interrupt(dbos_seam.cancelled_among(running))

    def _resume_waiting_for_agents(self) -> None:
        agents = registered_names()
        if not agents:
            return
        for run_id, segment in self._database.run_sync(runs_waiting_for_agents, agents):
            if self._database.run_sync(mark_queued, run_id, was=("interrupted",)):
                self._client.resume_workflow(segment_id(run_id, segment))

    def _tie_loose_ends(self) -> None:
        """Bring runs and workflows together where a crash came between two writes, or DBOS gave a workflow up."""
        found = self._database.run_sync(unfinished_segments, older_than_seconds=LOOSE_ENDS_SECONDS)
        by_workflow = {segment_id(run_id, segment): (run_id, status) for run_id, segment, status in found}
        if not by_workflow:
            return
        workflows = self._client.list_workflows(workflow_ids=list(by_workflow), load_input=False, load_output=False)
        self._start_missing({key for key, (_, status) in by_workflow.items() if status == "queued"}, workflows)
        for workflow in workflows:
            run_id, status = by_workflow[workflow.workflow_id]
            if status == "cancelled" and workflow.status in ("PENDING", "ENQUEUED", "DELAYED"):
                self._client.cancel_workflow(workflow.workflow_id)
            elif status != "cancelled" and workflow.status == "CANCELLED":
                self._database.run_sync(mark_cancelled, run_id, reason="cancelled")
            elif status != "cancelled" and workflow.status in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
                self._fail(run_id, workflow.workflow_id, workflow.status)

    def _start_missing(self, queued: set[str], workflows: Sequence[WorkflowStatus]) -> None:
        """Enqueue segments that nothing starts: who claimed one died before it was there. Missing twice is missing."""
        missing = queued - {workflow.workflow_id for workflow in workflows}
        for workflow_id in missing & self._missing:
            run_id, number = run_of_segment(workflow_id)
            if number > 1:  # a first one is stored with its run
                self._database.run_sync(enqueue_missing, run_id, number)
        self._missing = missing

    def _fail(self, run_id: str, workflow_id: str, status: str) -> None:
        if status == "ERROR":
            found = self._client.list_workflows(workflow_ids=[workflow_id], load_input=False)
            reason, message = "engine_error", f"The engine could not go on: {found[0].error if found else 'unknown'}"
        else:
            reason = "recovery_attempts_exceeded"
            message = "The run was started too often without coming to an end; it may end its process each time."
        self._database.run_sync(mark_failed, run_id, reason=reason, error=encode_error(RunFailedError(message)))
