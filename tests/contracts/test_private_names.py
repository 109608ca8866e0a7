"""Where Timestep leans on private names of DBOS and of the Agents SDK: in the seams, and each of them is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import private_names
import pytest
from private_names import Use, uses_of

import timestep

PACKAGE = Path(timestep.__path__[0])
REPOSITORY = PACKAGE.parent
SEAMS = [
    "client/serializer.py",
    "durable/seams/agents_sdk.py",
    "durable/seams/agents_speed.py",
    "durable/seams/dbos_recovery.py",
    "durable/seams/dbos_sdk.py",
    "durable/seams/dbos_speed.py",
    "durable/seams/run_state.py",
    "durable/seams/tool_outputs.py",
    "models/clients.py",
]
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


Uses = dict[str, list[Use]]


@pytest.fixture(scope="module")
def uses() -> Uses:
    """The names of the packages that each module uses, read in a process where nothing is replaced."""
    modules = sorted(PACKAGE.rglob("*.py"))
    command = [sys.executable, private_names.__file__, str(REPOSITORY), *map(str, modules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {str(path.relative_to(PACKAGE)): [Use(**use) for use in found[str(path)]] for path in modules}


def private_uses(uses: Uses, module: str) -> list[Use]:
    """Return the private names of the packages that a module uses; what cannot be told counts, but for plain texts."""
    found = [use for use in uses[module] if use.is_private]
    return found if module in SEAMS else [use for use in found if "is a text" not in use.problem]


def test_only_the_seams_use_private_names_of_dbos_and_of_the_agents_sdk(uses: Uses) -> None:
    assert len(uses) > 50
    assert {module: found for module in uses if (found := private_uses(uses, module)) and module not in SEAMS} == {}
    assert [module for module in uses if private_uses(uses, module)] == SEAMS


@pytest.mark.parametrize("module", SEAMS)
def test_every_name_that_a_seam_uses_is_there(uses: Uses, module: str) -> None:
    assert [f"{module}:{use.line}: {use.name}: {use.problem}" for use in uses[module] if use.problem] == []


def test_the_names_of_every_form_are_found(uses: Uses) -> None:
    """A module, a function, a class's, an instance's, an argument, a text, a key of a dict: one of each."""
    found = {use.name for module in SEAMS for use in private_uses(uses, module)}
    assert {
        "dbos._recovery",
        "dbos._recovery.recover_pending_workflows",
        "agents.run_internal.tool_actions.ComputerAction._execute_action_and_capture",
        "dbos._dbos.StepReservation._step_ctx",
        "agents.run_state.RunState._context",
        "agents.result.RunResult(_last_agent=)",
        "agents.result.RunResult(_conversation_id=)",
        "ollama.AsyncClient._client",
    } <= found


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("from dbos import _nothing", "dbos._nothing: it is not there"),
        ("import agents.run_internal.nothing as sdk", "agents.run_internal.nothing: No module named"),
        ("from dbos import DBOS\ndef of(one: DBOS) -> None:\n    one._nothing()", "dbos._dbos.DBOS._nothing"),
        ("def of(one) -> None:\n    one._sys_db()", "_sys_db: the type of 'one' is not known"),
        ("from agents import RunState\nsetattr(RunState, '_nothing', 1)", "agents.run_state.RunState._nothing"),
        ("from agents import RunResult\nRunResult(_nothing=1)", "agents.result.RunResult(_nothing=)"),
        ("name = '_current_turn'", "_current_turn: is a text"),
        ("from agents import RunState\nRELEASE.check(RunState.reject, ['self'])", "agents.run_state.RunState.reject"),
        (
            "from dbos._schemas.system_database import SystemSchema\n"
            "RELEASE.check_columns(SystemSchema.streams, ['nothing'])",
            "the table streams: it has [",
        ),
        ("RELEASE.check(nothing, ['self'])", "nothing: this check cannot be repeated"),
        (
            "from dbos._context import DBOSContext\nRELEASE.check_attributes(DBOSContext(), ['nothing'])",
            "dbos._context.DBOSContext.nothing: it is not there",
        ),
    ],
)
def test_a_name_that_is_not_there_or_cannot_be_told_is_a_problem(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "seam.py").write_text(line)
    [found] = [f"{use.name}: {use.problem}" for use in uses_of(tmp_path / "seam.py", tmp_path) if use.problem]
    assert found.startswith(problem)


def test_the_readme_says_how_many_files_hold_private_names() -> None:
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    [(word, files)] = re.findall(r"Their private names are used in (\w+) files alone: (.*?)\. ", text)
    assert word == WORDS[len(SEAMS)]
    assert sorted(re.findall(r"`(\w+\.py)`", files)) == sorted(module.rpartition("/")[2] for module in SEAMS)
