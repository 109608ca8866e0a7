"""Folders with unusual paths."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from timestep.embedded_postgres import EmbeddedPostgres
from timestep.embedded_postgres.layout import SOCKET_PATH_LIMIT_BYTES, Layout
from timestep.errors import EmbeddedPostgresError


def check(server: EmbeddedPostgres) -> None:
    """Use the server in every way that depends on its path."""
    server.ensure()
    server.ensure_database("app")
    for address in (server.conninfo("app"), server.url("app")):
        with psycopg.connect(address) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    assert server.status().state == "running"
    assert server.stop()


def test_spaces_quotes_and_letters_of_all_kinds_in_the_path_do_no_harm(drill):
    name = "Application Support É ü'q 100% #1 日本"
    check(drill.server(drill.root / name / "18", has_cluster=False))


def test_characters_that_a_shell_would_expand_do_no_harm(drill):
    name = 'a "b" $HOME `id` c\\d'
    check(drill.server(drill.root / name / "18", has_cluster=False))


def test_a_comma_in_the_path_is_not_taken_for_two_hosts(drill):
    check(drill.server(drill.root / "a,b" / "18"))


def test_a_path_too_long_for_a_socket_gets_a_private_folder_elsewhere(drill, monkeypatch):
    server = drill.server(drill.root / ("x" * 60) / ("y" * 60) / "18")
    folder = Layout(directory=server.directory).socket_folder
    assert len(os.fsencode(folder / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT_BYTES
    check(server)
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("TMPDIR", str(drill.root))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(drill.root))
    assert Layout(directory=server.directory).socket_folder == folder


def test_a_socket_folder_that_was_open_to_others_is_closed(drill):
    server = drill.server(drill.root / ("x" * 60) / ("y" * 60) / "18")
    folder = Layout(directory=server.directory).socket_folder
    folder.mkdir()
    folder.chmod(0o777)
    check(server)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_socket_folder_that_is_a_link_is_refused(drill):
    server = drill.server(drill.root / ("x" * 60) / ("y" * 60) / "18")
    folder = Layout(directory=server.directory).socket_folder
    folder.symlink_to(drill.root)
    try:
        with pytest.raises(EmbeddedPostgresError, match="belongs to somebody else") as caught:
            server.ensure()
        assert "shorter path" in caught.value.hint
    finally:
        folder.unlink()


def test_a_path_through_a_link_is_the_same_server(drill):
    drill.server().ensure()
    link = drill.root / "link"
    link.symlink_to(drill.directory)
    assert EmbeddedPostgres(link).directory == drill.directory
    assert EmbeddedPostgres(link).status() == drill.server().status()


@pytest.mark.parametrize("name", ["two\nlines", os.fsdecode(b"latin-\xe9")])
def test_a_path_that_postgres_cannot_take_is_refused_at_once(tmp_path: Path, name):
    with pytest.raises(EmbeddedPostgresError, match="unprintable characters"):
        EmbeddedPostgres(tmp_path / name).ensure()
    assert not (tmp_path / name).exists()
