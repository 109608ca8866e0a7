"""`timestep help`: a command, and the exit codes."""

from __future__ import annotations

from command_line import Timestep

from timestep.cli.errors import EXIT_CODE_MEANINGS, ExitCode


def test_exit_codes_are_explained(timestep_command: Timestep) -> None:
    run = timestep_command("help", "exit-codes")
    assert run.returncode == 0
    lines = [line.split(maxsplit=1) for line in run.stdout.splitlines()[1:]]
    assert {int(code): text for code, text in lines} == {int(code): text for code, text in EXIT_CODE_MEANINGS.items()}
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 6, 130]


def test_help_explains_a_command_and_refuses_an_unknown_one(timestep_command: Timestep) -> None:
    assert timestep_command("help", "db", "url").stdout == timestep_command("db", "url", "--help").stdout
    run = timestep_command("help", "nonsense")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: There is no command or topic 'nonsense'.")
