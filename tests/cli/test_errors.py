"""How an error is shown, and the exit code of each."""

from __future__ import annotations

import pytest
from command_line import Play, raising

from timestep import errors
from timestep.cli.errors import exit_code_of


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
