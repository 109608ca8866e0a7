"""The skeleton of the command line: what it loads, how errors look, how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import Play, Timestep, raising

from timestep import cli
from timestep.cli.errors import ExitCode

HEAVY = {"rich", "dbos", "sqlalchemy", "psycopg", "agents", "openai", "yaml", "platformdirs", "pydantic"}


def test_starting_loads_nothing_heavy(environment: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from timestep.cli import run_command_line\n"
        "for words in (['--help'], ['--version'], [], ['help', 'exit-codes'], ['nonsense']):\n"
        "    run_command_line(words)\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(run.stderr.split())
    assert "timestep.cli" in loaded
    assert not HEAVY & loaded


def test_help_lists_every_command_with_its_line(timestep_command: Timestep) -> None:
    run = timestep_command("--help")
    assert (run.returncode, run.stderr) == (0, "")
    for name, (_, line) in cli.COMMANDS.items():
        assert f"{name} " in run.stdout
        assert line in run.stdout
    assert timestep_command().stdout == run.stdout


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["rnus"], "No such command 'rnus'. Did you mean 'runs'?", "See `timestep --help`."),
        (["--bogus"], "No such option '--bogus'.", "See `timestep --help`."),
        (
            ["db", "strt"],
            "No such command 'strt'. (Did you mean one of: 'start', 'status'?)",
            "See `timestep db --help`.",
        ),
        (["doctor", "more"], "Got unexpected extra argument (more)", "See `timestep doctor --help`."),
    ],
)
def test_bad_usage_ends_with_2_an_error_and_a_hint(
    timestep_command: Timestep, words: list[str], message: str, hint: str
) -> None:
    run = timestep_command(*words)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"error: {message}\n\nhint: {hint}\n")


def test_a_group_without_a_command_is_bad_usage(timestep_command: Timestep) -> None:
    run = timestep_command("db")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("Usage: timestep db")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort(), EOFError()])
def test_ctrl_c_ends_with_130_and_says_nothing(
    play: Play, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    assert play(raising(error))() == 130
    assert capsys.readouterr() == ("", "")


def test_a_command_chooses_its_exit_code(play: Play) -> None:
    assert play(lambda: click.get_current_context().exit(ExitCode.RUN_WAITS))() == 5
    assert play(lambda: "a result is no exit code")() == 0


def test_a_closed_pipe_ends_quietly(environment: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import sys, types, click\n"
        "from timestep import cli\n"
        "module = types.ModuleType('played')\n"
        "module.command = click.command()(lambda: [click.echo('x' * 1000) for _ in range(10_000)] and None)\n"
        "sys.modules['played'] = module\n"
        "cli.COMMANDS['play'] = ('played', 'Play.')\n"
        "cli.main(['play'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stderr:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_broken_connection_is_not_taken_for_a_closed_pipe(
    play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_is_stdout_closed", lambda: False)
    assert play(raising(BrokenPipeError("the server is gone")))() == 1
    assert "the server is gone" in capsys.readouterr().err


def test_text_that_cannot_be_encoded_is_escaped_and_not_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "timestep", "nonsense\udc80ö"],
        env=environment | {"PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: No such command")
