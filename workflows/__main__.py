"""`python -m workflows`: execute runs until SIGTERM or Ctrl-C."""

from timestep import ensure_dbos_launched, register_agents
from timestep.cli import main
from workflows.agents import assistant, reporter

if __name__ == "__main__":
    register_agents(assistant, reporter)
    ensure_dbos_launched()
    main(["worker", "workflows"])
