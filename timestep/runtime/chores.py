"""What every executor does once a second for the runs of all: time limits, parked runs, pauses, loose ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from dbos import WorkflowStatus

from timestep import event_loops
from timestep.client.approvals import expire_approvals
from timestep.client.connector import Connector
from timestep.client.runs import cancel_run, resume_run
from timestep.client.serializer import encode_error
from timestep.durable.process import closed_workflows, running_steps, segment_place
from timestep.durable.process.engine import forget_left, left_workflows
from timestep.durable.process.registered_agents import find_agent, registered_names
from timestep.durable.schedules import start_missed_ticks
from timestep.durable.seams import dbos_recovery
from timestep.durable.segment.request import missing_code
from timestep.durable.steps.rate_limits import note_pauses
from timestep.errors import RunFailedError, RunStateError
from timestep.ids import SEGMENT_QUEUE, copy_id, run_of_segment, segment_id
from timestep.store.due import Due, ParkedRun, find_due
from timestep.store.queues import mend_sessions
from timestep.store.runs import (
    mark_cancelled,
    mark_failed,
    unfinished_segments,
)
from timestep.store.segments import enqueue_missing
from timestep.words import CANCELLED, ENGINE_ERROR, RECOVERY_ATTEMPTS_EXCEEDED, TIMEOUT, RunStatus

EXPIRY_SECONDS = 5
"""How often is looked for approvals whose time is over; they wait for hours or days."""

LOOSE_ENDS_SECONDS = 10
"""How often runs are compared with their workflows, and how old a run must be for it."""

LOOKS_BEFORE_LOST = 12
"""After how many looks a workflow is lost that was claimed and has not begun."""

BATCH_RUNS = 1000
"""How many runs are compared at once: Postgres takes 65,535 parameters."""


class Chores:
    """The chores of one executor."""

    def __init__(self, connector: Connector, *, executor_id: str, version: str, queue: str = SEGMENT_QUEUE) -> None:
        """`queue` is that of segments which were left here in the middle."""
        self._connector, self._database, self._client = connector, connector.database, connector.dbos
        self._executor_id, self._version, self._queue = executor_id, version, queue
        self._seen = Due()
        self._idle: dict[str, int] = {}
        self._stuck: set[str] = set()
        self._began_at = time.monotonic()
        self._last: dict[float, float] = {}

    def due(self) -> list[Callable[[], None]]:
        """Return what is due now; every chore is harmless when another executor does it too."""
        chores = [
            self._give_back,
            self._look,
            self._cancel_overdue,
            self._resume_parked,
            self._interrupt_cancelled,
        ]
        if self._is_time(EXPIRY_SECONDS):
            chores.append(self._expire_approvals)
        if self._is_time(LOOSE_ENDS_SECONDS):
            chores += [self._tie_loose_ends, self._recover_lost, self._start_missed_ticks]
        return chores

    def _is_time(self, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(seconds, self._began_at) < seconds:
            return False
        self._last[seconds] = now
        return True

    def _give_back(self) -> None:
        """Give back the segments whose event loop has ended: they go on in another one, here or elsewhere."""
        event_loops.look()
        left = segment_place.take_left()
        try:
            if owned := [(each.workflow_id, each.owner) for each in left if each.owner is not None]:
                dbos_recovery.give_back(self._executor_id, owned, self._queue)
        except BaseException:
            segment_place.put_left(left)
            raise
        closed_workflows.finish_left()

    def _look(self) -> None:
        """Look what there is to do; of pauses all calls hear here, so that those without a limit need not ask."""
        self._seen = Due()
        self._seen = self._database.run_sync(find_due, registered_names())
        note_pauses(self._seen.pauses)

    def _cancel_overdue(self) -> None:
        for run_id in self._seen.overdue:
            try:
                cancel_run(self._connector, run_id, reason=TIMEOUT)
            except RunStateError:
                continue  # it ended at this moment

    def _expire_approvals(self) -> None:
        expire_approvals(self._connector)

    def _interrupt_cancelled(self) -> None:
        if running := running_steps.workflows_in_flight():
            running_steps.interrupt(dbos_recovery.cancelled_among(running))

    def _resume_parked(self) -> None:
        # Who parks a run cancels its workflow last: a resume before that would be cancelled with it.
        ids = [segment_id(each.run_id, each.segment) for each in self._seen.waiting if _has_its_code(each)]
        statuses = self._statuses_of(ids)
        parked = [each for each in ids if statuses.get(each) == "CANCELLED"]
        if parked:  # executors of the version that parked them do not have what they need
            dbos_recovery.bind_workflows(self._client, parked, self._version)
        for workflow_id in parked:
            with contextlib.suppress(RunStateError):  # another executor was faster
                resume_run(self._connector, run_of_segment(workflow_id)[0], is_bound=True)

    def _start_missed_ticks(self) -> None:
        start_missed_ticks(self._connector)

    def _recover_lost(self) -> None:
        """Put back what is this executor's and what nothing executes.

        At the second look in a row what was left in the middle; after many what was claimed and has not begun. A crowd
        that is claimed at once begins one by one, and who is put back too soon calls its model twice.
        """
        left, active = left_workflows(), dbos_recovery.active_workflow_ids()
        idle = dbos_recovery.idle_workflows(self._executor_id)
        forget_left(left - idle - set(active))
        self._idle = {workflow_id: self._idle.get(workflow_id, 0) + 1 for workflow_id in idle}
        lost = [each for each, looks in self._idle.items() if looks >= (2 if each in left else LOOKS_BEFORE_LOST)]
        dbos_recovery.recover_lost(self._executor_id, lost)

    def _tie_loose_ends(self) -> None:
        """Bring runs and workflows together where a crash came between two writes, or DBOS gave a workflow up.

        First go on with the sessions that nobody has although runs wait for them.

        Raises:
            ExceptionGroup: a batch of runs failed; the others were looked at.
        """
        self._database.run_sync(mend_sessions)
        stuck: set[str] = set()
        errors: list[Exception] = []
        after = ""
        while found := self._database.run_sync(
            unfinished_segments, older_than_seconds=LOOSE_ENDS_SECONDS, after=after, limit=BATCH_RUNS
        ):
            after = found[-1][0]
            try:
                stuck |= self._compare({segment_id(run_id, segment): status for run_id, segment, status in found})
            except Exception as error:  # noqa: BLE001 - raised with the others below
                errors.append(error)
        self._stuck = stuck
        if errors:
            raise ExceptionGroup("Some runs could not be compared with their workflows.", errors)

    def _compare(self, statuses: dict[str, RunStatus]) -> set[str]:
        """Compare runs with their workflows, and return the queued ones that nothing starts.

        A resume marks the run and then its workflow, so one that is stuck is only helped when the look before said so
        too.
        """
        workflows = self._client.list_workflows(workflow_ids=list(statuses), load_input=False, load_output=False)
        queued = {workflow_id for workflow_id, status in statuses.items() if status == "queued"}
        missing = queued - {workflow.workflow_id for workflow in workflows}
        stopped = queued & {workflow.workflow_id for workflow in workflows if workflow.status == "CANCELLED"}
        self._start_missing(missing & self._stuck)
        for workflow_id in stopped & self._stuck:
            self._client.resume_workflow(workflow_id)
        for workflow in workflows:
            self._follow(workflow, statuses[workflow.workflow_id])
        return missing | stopped

    def _start_missing(self, workflow_ids: set[str]) -> None:
        """Enqueue segments that nothing starts: who claimed one died before it was there, or resumed its copy."""
        copies = self._statuses_of([copy_id(each) for each in workflow_ids])
        for workflow_id in workflow_ids:
            match copies.get(copy_id(workflow_id)):
                case "CANCELLED":
                    self._client.resume_workflow(copy_id(workflow_id))
                case "ENQUEUED" | "PENDING":
                    continue  # it waits for an executor
                case _:
                    self._database.run_sync(enqueue_missing, *run_of_segment(workflow_id))

    def _follow(self, workflow: WorkflowStatus, status: RunStatus) -> None:
        """Bring a run and its workflow together where one of them has ended and the other has not."""
        run_id, _ = run_of_segment(workflow.workflow_id)
        if status == "cancelled" and workflow.status in ("PENDING", "ENQUEUED", "DELAYED"):
            self._client.cancel_workflow(workflow.workflow_id)
        elif status == "running" and workflow.status == "CANCELLED":
            self._database.run_sync(mark_cancelled, run_id, reason=CANCELLED, was=("running",))
        elif status != "cancelled" and workflow.status in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
            self._fail(run_id, workflow.workflow_id, workflow.status)

    def _statuses_of(self, workflow_ids: Sequence[str]) -> dict[str, str]:
        if not workflow_ids:
            return {}
        found = self._client.list_workflows(workflow_ids=list(workflow_ids), load_input=False, load_output=False)
        return {workflow.workflow_id: workflow.status for workflow in found}

    def _fail(self, run_id: str, workflow_id: str, status: str) -> None:
        if status == "ERROR":
            found = self._client.list_workflows(workflow_ids=[workflow_id], load_input=False)
            reason, message = ENGINE_ERROR, f"The engine could not go on: {found[0].error if found else 'unknown'}"
        else:
            reason = RECOVERY_ATTEMPTS_EXCEEDED
            message = "The run was started too often without coming to an end; it may end its process each time."
        self._database.run_sync(mark_failed, run_id, reason=reason, error=encode_error(RunFailedError(message)))


def _has_its_code(run: ParkedRun) -> bool:
    """Whether this process has what a parked run needs."""
    entry = find_agent(run.agent)
    return entry is not None and not missing_code(entry, run.code, run.model)
