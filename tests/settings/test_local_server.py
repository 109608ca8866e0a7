"""A Postgres server on this machine, which is used when nothing is named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from timestep import settings as settings_module
from timestep.settings import (
    Settings,
    describe_settings,
    local_server,
    resolve_settings,
)
from timestep.settings.local_server import Database, find_local_database

URL = "postgresql://ann:secret@db.example:5433/shop"
OTHER = "postgresql://ann:secret@db.example:5433/other"

Resolve = Callable[..., Settings]


def test_a_local_server_is_used_only_when_nothing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = Database(url="postgresql://ann@localhost:5432/timestep", source="local server on port 5432")
    monkeypatch.setattr(settings_module, "find_local_database", lambda: found)
    settings = resolve_settings(environ={}, directory=tmp_path)
    assert (settings.database_url, settings.database_source) == (found.url, found.source)
    assert resolve_settings(environ={"PG_CONNECTION_URI": URL}, directory=tmp_path).database_url == URL
    assert resolve_settings(environ={"TIMESTEP_PROBE_LOCAL": "0"}, directory=tmp_path).database_url is None


def test_a_local_server_without_the_database_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = Database(url=None, source="embedded server", problem="No base.", hint="Run `createdb`.", is_reported=True)
    monkeypatch.setattr(settings_module, "find_local_database", lambda: found)
    monkeypatch.setattr(settings_module, "_reported", set())
    with caplog.at_level(logging.WARNING, "timestep"):
        for _ in range(2):
            assert resolve_settings(environ={}, directory=tmp_path).database_url is None
    assert [record.getMessage() for record in caplog.records] == ["No base. Run `createdb`."]
    described = describe_settings(environ={}, directory=tmp_path)[0]
    assert (described.value, described.problem, described.hint) == (
        "embedded server",
        "No base.",
        "Run `createdb`.",
    )


def test_no_local_server_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "_tcp_answers", lambda port: False)
    (tmp_path / ".s.PGSQL.5432").touch()
    found = find_local_database(folders=(str(tmp_path), str(tmp_path / "none")))
    assert (found.url, found.source, found.problem) == (None, "embedded server", None)
