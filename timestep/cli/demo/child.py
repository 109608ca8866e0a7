"""The process that the demo kills: it runs the planner under a given run id, whatever was done of it before."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from timestep.cli.demo.side_log import SideLog


def main(run_id: str, log_path: str, model: str) -> None:
    """Run the planner, or go on with its run, and write the answer to the log."""
    from timestep.cli.demo.scenario import TASK, build_planner
    from timestep.cli.quiet import quieten
    from timestep.durable.start import run_agent_workflow
    from timestep.runtime import cleanup_dbos, ensure_dbos_launched

    log = SideLog(Path(log_path))
    planner = build_planner(log, model)
    quieten()
    ensure_dbos_launched(queues=())
    log.write("ready")
    result = asyncio.run(run_agent_workflow(planner, TASK, workflow_id=run_id))
    log.write("answer", text=str(result.output))
    cleanup_dbos()


if __name__ == "__main__":
    main(*sys.argv[1:])
