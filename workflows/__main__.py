"""`python -m workflows`: execute runs until SIGTERM or Ctrl-C."""

from timestep import ensure_dbos_launched, register_agents
from timestep.cli import main
from workflows import AGENTS

if __name__ == "__main__":
    register_agents(*AGENTS)
    ensure_dbos_launched()
    main(["worker", "workflows"])
