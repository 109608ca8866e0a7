"""The skeleton of the command line: what it loads, how errors look, how it ends."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import Ended

from timestep import cli, errors
from timestep.cli import output
from timestep.cli.errors import EXIT_CODE_MEANINGS, ExitCode, exit_code_of
from timestep.records import SettingValue

Timestep = Callable[..., Ended]
Play = Callable[[Callable[[], Any]], Callable[..., int]]

HEAVY = {"rich", "dbos", "sqlalchemy", "psycopg", "agents", "openai", "yaml", "platformdirs", "pydantic"}


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run the command line with a command `play` whose body is given."""

    def make(body: Callable[[], Any]) -> Callable[..., int]:
        module = types.ModuleType("played")
        module.command = click.command(name="play")(click.option("--size", type=int)(lambda size: body()))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "played", module)
        monkeypatch.setitem(cli.COMMANDS, "play", ("played", "Play."))
        return lambda *words: cli.run_command_line(words or ("play",))

    return make


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunNotFoundError("no run with id order-43", hint="List them."), 3),
        (errors.RunFailedError(), 4),
        (errors.RunTimedOutError(), 4),
        (errors.InterruptionException(), 5),
        (errors.DatabaseNotReadyError(), 6),
        (errors.EmbeddedPostgresError(), 6),
        (errors.InvalidRunIdError(), 2),
        (errors.SettingsError(), 1),
        (errors.HistoryChangedError(), 1),
    ],
)
def test_an_error_of_timestep_is_shown_with_its_hint_and_code(
    play: Play, capsys: pytest.CaptureFixture[str], error: errors.TimestepError, code: int
) -> None:
    assert play(raising(error))() == code
    assert exit_code_of(error) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {error}\n\nhint: {error.hint}\n")


def test_any_other_error_is_shown_by_its_kind_and_a_traceback_only_with_debug(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    command = play(raising(ValueError("bad\n  value")))
    assert command() == 1
    shown = capsys.readouterr().err
    assert shown == "error: ValueError: bad value\n\nhint: Add --debug to see where it happened.\n"
    for words in (("play", "--debug"), ("--debug", "play")):
        assert command(*words) == 1
        assert "Traceback" in capsys.readouterr().err


def test_a_lost_database_is_shown_without_its_statement(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    import psycopg
    from sqlalchemy import exc

    lost = exc.OperationalError("select secret", {}, psycopg.OperationalError("connection\nrefused"))
    assert play(raising(lost))() == 6
    assert capsys.readouterr().err.startswith("error: The database does not answer: connection refused\n\nhint: ")
    refused = exc.ProgrammingError("select secret", {}, psycopg.errors.InsufficientPrivilege("permission denied"))
    assert play(raising(refused))() == 1
    assert capsys.readouterr().err.startswith("error: The database refused a statement: permission denied\n\nhint: ")


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


def test_quiet_silences_notes_and_not_data(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        output.note("by the way")
        output.emit("data")

    command = play(body)
    assert command("play") == 0
    assert capsys.readouterr() == ("data\n", "by the way\n")
    for words in (("play", "--quiet"), ("--quiet", "play")):
        assert command(*words) == 0
        assert capsys.readouterr() == ("data\n", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("words", "has_colour"), [(("play",), True), (("--no-color", "play"), False)])
def test_colours_are_for_terminals_that_want_them(
    play: Play, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], has_colour: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    command = play(lambda: output.emit(output.coloured("ok", "green")))
    assert command(*words) == 0
    assert ("\x1b[32m" in terminal.getvalue()) is has_colour
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.truncate(0)
    assert command("play") == 0
    assert "\x1b" not in terminal.getvalue()


def test_a_table_without_a_terminal_is_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(["ID", "NAME"], [["x" * 200, None], ["日本", "a\nb\x1b[31m"], [7, "ö"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ID" + " " * 198 + "  NAME"
    assert lines[1] == "x" * 200
    assert lines[2] == "日本" + " " * 196 + r"  a b\x1b[31m"
    assert lines[3] == "7" + " " * 199 + "  ö"


def test_a_table_on_a_terminal_keeps_ids_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    output.emit_table(["ID", "TEXT", "WHEN"], [["i" * 36, "t" * 100, "now"], ["日", "ok", "日本語" * 30]])
    lines = terminal.getvalue().splitlines()
    assert lines[0].split() == ["ID", "TEXT", "WHEN"]
    assert lines[1].split() == ["i" * 36, "t" * 9 + "…", "now"]
    assert lines[2].split() == ["日", "ok", "日本語日…"]
    monkeypatch.setenv("COLUMNS", "20")
    output.emit_table(["ID", "TEXT"], [["i" * 36, "t" * 100]])
    assert "i" * 36 in terminal.getvalue().splitlines()[-1]


def test_json_has_the_field_names_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    record = SettingValue(name="é", value="\udc80", source="s")
    output.emit_json(
        {"record": record, "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "path": Path("/a"), "set": {2, 1}}
    )
    loaded = json.loads(capsys.readouterr().out)
    assert loaded == {
        "record": dataclasses.asdict(record),
        "at": "2026-01-02T03:04:05.000Z",
        "path": "/a",
        "set": [1, 2],
    }
    output.emit_json_line({"a": [1, 2]})
    assert capsys.readouterr().out == '{"a":[1,2]}\n'
    with pytest.raises(TypeError):
        output.emit_json(object())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7200, "2 h ago"),
        (200_000, "2 d ago"),
        (-90, "in 1 min"),
    ],
)
def test_times_are_relative_or_iso(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert output.format_time(now - timedelta(seconds=seconds), now=now) == text
    assert output.format_time(now, "iso") == "2026-01-02T00:00:00.000Z"
    assert output.format_time(None) == ""


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
