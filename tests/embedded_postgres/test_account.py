"""Who the server runs as, and that a root user's machine stays as it was."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from timestep.embedded_postgres import EmbeddedPostgres, account, default_directory, server
from timestep.embedded_postgres.account import Account, choose_account
from timestep.errors import EmbeddedPostgresError

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="what happens to root")
NAMELESS = 54321


@pytest.fixture(autouse=True)
def forget_the_choice():
    choose_account.cache_clear()
    yield
    choose_account.cache_clear()


@pytest.fixture
def no_namespaces(monkeypatch):
    """A machine that denies user namespaces, as Docker does."""
    monkeypatch.setattr(account, "namespace_prefixes", lambda _: [("/bin/false",)])


def owners(folder: Path) -> set[int]:
    return {found.lstat().st_uid for found in (folder, *folder.rglob("*"))}


def is_served(drill) -> bool:
    with drill.server().connect("postgres") as connection:
        return connection.execute("select 1").fetchone() == (1,)


@pytest.mark.skipif(IS_ROOT, reason="what happens to an ordinary user")
def test_an_ordinary_user_runs_the_server_as_it_is():
    assert choose_account() == Account(user_id=os.geteuid(), group_id=os.getegid())


def namespaces_work() -> bool:
    prefixes = account.namespace_prefixes(pwd.getpwnam("nobody"))
    return any(Account(user_id=0, group_id=0, prefix=p).run(["/bin/true"]).returncode == 0 for p in prefixes)


@needs_root
@pytest.mark.parametrize("way", ["unshare", sys.executable])
def test_root_runs_the_server_in_a_namespace_and_all_files_stay_roots(drill, monkeypatch, way):
    if not namespaces_work():
        pytest.skip("this machine denies user namespaces")
    prefixes = [p for p in account.namespace_prefixes(pwd.getpwnam("nobody")) if p[0].endswith(way)]
    monkeypatch.setattr(account, "namespace_prefixes", lambda _: prefixes)
    modes = {parent: parent.stat().st_mode for parent in drill.root.parents}
    drill.server(has_cluster=False).ensure()
    assert choose_account().prefix == prefixes[0]
    assert is_served(drill)
    assert owners(drill.root) == {0}
    assert {parent: parent.stat().st_mode for parent in drill.root.parents} == modes
    drill.kill_postmaster()
    assert is_served(drill)


@needs_root
def test_root_without_namespaces_runs_the_server_as_nobody(open_drill, no_namespaces):
    nobody = pwd.getpwnam("nobody")
    open_drill.server(has_cluster=False).ensure()
    assert psutil.Process(open_drill.postmaster()).uids().effective == nobody.pw_uid
    assert psutil.Process(open_drill.postmaster()).gids().effective == nobody.pw_gid
    assert is_served(open_drill)
    assert owners(open_drill.directory / "data") == {nobody.pw_uid}
    assert (open_drill.directory / "data").stat().st_mode & 0o777 == 0o700
    assert (open_drill.directory / "socket").stat().st_mode & 0o777 == 0o700
    assert open_drill.directory.stat().st_uid == 0
    open_drill.kill_postmaster()
    assert is_served(open_drill)
    open_drill.server().release()
    assert open_drill.is_stopped()


@needs_root
def test_the_data_changes_hands_when_the_machine_changes_its_mind(open_drill, monkeypatch):
    if not namespaces_work():
        pytest.skip("this machine denies user namespaces")
    with open_drill.server().connect("postgres") as connection:
        connection.execute("create table kept as select 42 as number")
    for patched in (True, False):
        open_drill.server().release()
        choose_account.cache_clear()
        with monkeypatch.context() as patch:
            if patched:
                patch.setattr(account, "namespace_prefixes", lambda _: [])
            with open_drill.server().connect("postgres") as connection:
                assert connection.execute("select number from kept").fetchone() == (42,)
            assert choose_account().is_switched == patched


@needs_root
def test_a_folder_that_nobody_cannot_enter_is_refused_by_name(tmp_path, no_namespaces):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=str(closed)) as caught:
        EmbeddedPostgres(closed / "postgres" / "18").ensure()
    assert "TIMESTEP_DATA_DIR" in caught.value.hint
    assert closed.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(closed)


@needs_root
def test_the_default_folder_leaves_roots_home_only_where_nobody_must_enter(monkeypatch, tmp_path):
    if not namespaces_work():
        pytest.skip("this machine denies user namespaces")
    monkeypatch.delenv("TIMESTEP_DATA_DIR", raising=False)
    home = tmp_path / "root"
    home.mkdir(mode=0o700)
    monkeypatch.setattr(server.platformdirs, "user_data_dir", lambda name: str(home / "share" / name))
    assert default_directory() == home / "share" / "timestep" / "postgres" / "18"
    choose_account.cache_clear()
    monkeypatch.setattr(account, "namespace_prefixes", lambda _: [])
    assert default_directory() == Path("/var/lib/timestep/postgres/18")
    assert list(home.iterdir()) == []


@needs_root
def test_a_user_id_without_a_name_runs_the_server_in_a_namespace(open_drill):
    prefix = ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups"]
    if not namespaces_work() or subprocess.run([*prefix, sys.executable, "-c", ""], check=False).returncode:
        pytest.skip("needs user namespaces, setpriv and a Python that every user may run")
    open_drill.server(has_cluster=False)
    folder = open_drill.directory.parent
    for found in (open_drill.root, folder):
        os.chown(found, NAMELESS, NAMELESS)
    code = "server.ensure_database('app'); print(server.connect('app').info.dbname, flush=True)"
    child = open_drill.child(code, prefix=prefix)
    child.line()
    assert child.line() == "app"
    child.end()
    assert open_drill.is_stopped()
    assert owners(open_drill.directory) == {NAMELESS}


def test_a_machine_that_allows_no_way_is_an_error_with_the_way_out(monkeypatch):
    monkeypatch.setattr(account, "namespace_prefixes", lambda _: [])
    monkeypatch.setattr(account, "_has_name", lambda _: False)
    monkeypatch.setattr(account, "_works", lambda _: False)
    with pytest.raises(EmbeddedPostgresError, match="does not run as user id") as caught:
        choose_account()
    assert "PG_CONNECTION_URI" in caught.value.hint
