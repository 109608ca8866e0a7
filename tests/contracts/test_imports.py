"""What starting costs: the package and the command line load neither the SDK nor DBOS nor SQLAlchemy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"agents", "dbos", "sqlalchemy", "psycopg", "openai", "pydantic", "rich", "alembic"}


def modules_after(program: str) -> set[str]:
    """Return the top-level modules that a fresh process has loaded when `program` ends."""
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    ended = subprocess.run([sys.executable, "-c", report + program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in ended.stderr.split()}


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import timestep")
    assert "timestep" in loaded
    assert not HEAVY & loaded


def test_importing_the_package_leaves_no_handler_no_thread_and_no_connection() -> None:
    program = (
        "import logging, threading, timestep\nassert threading.active_count() == 1\nassert not logging.root.handlers"
    )
    assert "socket" not in modules_after(program)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["help", "exit-codes"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    loaded = modules_after(f"from timestep.cli import main\nmain({words!r})")
    assert "click" in loaded
    assert not HEAVY & loaded


def test_help_of_no_command_loads_the_agents_sdk() -> None:
    program = (
        "from timestep.cli import COMMANDS, run_command_line\n"
        "for name in COMMANDS:\n"
        "    assert run_command_line([name, '--help']) == 0"
    )
    assert "agents" not in modules_after(program)


def test_the_desk_works_without_the_agents_sdk() -> None:
    assert "agents" not in modules_after(
        "import timestep.client.runs, timestep.client.events, timestep.client.sessions"
    )


def test_every_public_name_loads_in_a_fresh_process() -> None:
    assert "agents" in modules_after("from timestep import *\nassert run_agent_workflow and Session and stream_run")
