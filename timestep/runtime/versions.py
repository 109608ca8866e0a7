"""Which application version takes new work, and who goes on with what is bound to a version that is gone.

DBOS gives work that is bound to no version to the one that was registered last, and all other work to its own version
alone. Here new work goes to the newest version with which a live executor takes runs; newest is that which was first
started last. An executor of that version adopts what is bound to versions that no live executor has: it replays the
recorded steps with its own code. A run whose steps do not fit is interrupted, and is its old version's again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

from dbos import DBOS, DBOSClient

from timestep.client.serializer import encode_error
from timestep.durable.seams import dbos_recovery
from timestep.durable.seams.dbos_recovery import BoundWorkflow
from timestep.errors import HistoryChangedError
from timestep.ids import DURABLE_VERSION, WORKFLOW_AGENT_RUN, run_of_segment
from timestep.store.connection import Database
from timestep.store.executors import insert_lost_executors
from timestep.store.runs import mark_parked
from timestep.words import HISTORY_CHANGED

log = logging.getLogger("timestep")

SWEEP_SECONDS = 10
"""How often is looked for stranded work while no executor comes or goes."""


@dataclass(frozen=True, kw_only=True)
class LiveExecutor:
    """An executor that is not known to be gone."""

    executor_id: str
    version: str
    takes_runs: bool


class Versions:
    """The versions of an application as one executor of `version` sees them."""

    def __init__(self, database: Database, client: DBOSClient, *, version: str) -> None:
        self._database, self._client, self._version = database, client, version
        self._seen: Collection[LiveExecutor] = ()
        self._swept_at = 0.0
        self._alive: set[str] = {version}
        self._is_current = False

    def look(self, live: Collection[LiveExecutor]) -> None:
        """Let new work go to the newest version of these executors, and adopt what is queued for none of them."""
        if set(live) == set(self._seen) and time.monotonic() - self._swept_at < SWEEP_SECONDS:
            return
        takers = {each.version for each in live if each.takes_runs}
        self._alive = takers or {each.version for each in live}
        registered = DBOS.list_application_versions()  # the latest first
        ages = {each["version_name"]: each["created_at"] for each in registered if each["version_name"] in self._alive}
        current = max(ages, key=lambda version: (ages[version], version), default=None)
        if current is not None and registered[0]["version_name"] != current:
            log.warning("New work goes to version %s, the newest with which an executor takes runs.", current)
            DBOS.set_latest_application_version(current)
        self._is_current = current == self._version
        if self._is_current:
            self.adopt()
            self._database.run_sync(insert_lost_executors, dbos_recovery.executors_with_work())
        self._seen, self._swept_at = live, time.monotonic()

    def adopt(self, executor_id: str | None = None) -> None:
        """Bind to this version what is bound to versions that are gone: what is queued, or what one executor had begun.

        `executor_id` is an executor that is gone. An executor of another version than the newest does nothing.
        """
        if not self._is_current:
            return
        found = dbos_recovery.bound_elsewhere(alive=self._alive, executor_id=executor_id)
        refused = [each for each in found if _is_of_other_engine(each)]
        adopted = [each for each in found if each not in refused]
        if adopted:
            versions = ", ".join(sorted({each.version for each in adopted}))
            log.warning(
                "%d workflows of %s, which no executor has, go on with %s.", len(adopted), versions, self._version
            )
            dbos_recovery.bind_workflows(
                self._client, [each.workflow_id for each in adopted], self._version, executor_id=executor_id
            )
        for each in refused:
            self._park(each)

    def _park(self, workflow: BoundWorkflow) -> None:
        run_id, _ = run_of_segment(workflow.workflow_id)
        error = HistoryChangedError(
            f"The steps of run {run_id!r} were recorded by another version of the engine, {workflow.version}, of which "
            f"no executor lives; {self._version} cannot replay them."
        )
        was = ("running", "queued")
        self._database.run_sync(mark_parked, run_id, reason=HISTORY_CHANGED, error=encode_error(error), was=was)
        self._client.cancel_workflow(workflow.workflow_id)


def _is_of_other_engine(workflow: BoundWorkflow) -> bool:
    """Whether the recorded steps of a run are those of an engine with another sequence of steps."""
    _, durable_version, _ = workflow.version.split(":", 2)
    return workflow.name == WORKFLOW_AGENT_RUN and workflow.has_steps and durable_version != str(DURABLE_VERSION)
