"""What commands print: tables, JSON, times, notes and colours."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import Play

from timestep.cli import output
from timestep.records import SettingValue


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
