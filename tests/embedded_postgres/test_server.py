"""What users of the server see."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from timestep.embedded_postgres import EmbeddedPostgres, default_directory, locks, server
from timestep.errors import EmbeddedPostgresError


def test_naming_a_server_touches_nothing(tmp_path):
    named = EmbeddedPostgres(tmp_path / "data" / "postgres" / "18")
    named.conninfo()
    named.url("app")
    assert named.status().state == "stopped"
    assert not named.stop()
    named.release()
    assert list(tmp_path.iterdir()) == []


def test_ensure_starts_a_private_server_with_our_settings(drill):
    drill.server(has_cluster=False).ensure()
    with drill.server().connect("postgres") as connection:
        query = "select name, setting from pg_settings where name = any(%s)"
        names = [
            "max_connections",
            "dynamic_shared_memory_type",
            "listen_addresses",
            "unix_socket_permissions",
            "fsync",
            "server_encoding",
        ]
        assert dict(connection.execute(query, [names]).fetchall()) == {
            "max_connections": "300",
            "dynamic_shared_memory_type": "mmap",
            "listen_addresses": "",
            "unix_socket_permissions": "0700",
            "fsync": "on",
            "server_encoding": "UTF8",
        }
    for folder in (drill.directory, drill.directory / "data", drill.directory / "socket"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_status_names_the_running_server(drill):
    drill.server().ensure()
    status = drill.server().status()
    assert status.state == "running"
    assert status.pid == int((drill.directory / "data" / "postmaster.pid").read_text().splitlines()[0])
    assert status.directory == drill.directory
    assert status.version is not None
    assert status.version.startswith("18.")
    assert "ready to accept connections" in status.log_path.read_text()


def test_the_server_stops_when_its_only_holder_exits(drill):
    child = drill.child()
    child.line()
    assert child.end() == 0
    assert drill.is_stopped()
    assert not (drill.directory / "data" / "postmaster.pid").exists()


def test_the_server_stays_until_the_last_holder_exits(drill):
    one = drill.child(UNTIL_INTERRUPTED)
    pid = one.line()
    two = drill.child()
    assert two.line() == pid
    two.end()
    assert drill.postmaster() == int(pid)
    one.kill(signal.SIGINT)  # ends through Python's own exit
    assert drill.is_stopped()


UNTIL_INTERRUPTED = """
try:
    time.sleep(1000)
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_leaves_the_server_to_the_next_last_one_out(drill, number):
    holder = drill.holder()
    pid = drill.postmaster()
    holder.kill(number)
    assert drill.postmaster() == pid
    child = drill.child()
    assert child.line() == str(pid)
    child.end()
    assert drill.is_stopped()


def test_a_killed_holder_does_not_count_beside_a_living_one(drill):
    one, two = drill.holder(), drill.holder()
    pid = drill.postmaster()
    one.kill()
    child = drill.child()
    child.line()
    child.end()
    assert drill.postmaster() == pid
    two.kill()


def test_a_pinned_server_outlives_its_holders_until_it_is_stopped(drill):
    child = drill.child("server.ensure(pin=True); print('pinned', flush=True)")
    pid = int(child.line())
    assert child.line() == "pinned"
    child.end()
    assert drill.postmaster() == pid
    later = drill.child()
    later.line()
    later.end()
    assert drill.postmaster() == pid
    assert drill.server().stop()
    assert drill.is_stopped()
    assert not drill.server().stop()
    unpinned = drill.child()
    unpinned.line()
    unpinned.end()
    assert drill.is_stopped()


def test_a_server_can_be_pinned_while_it_is_held(drill):
    drill.server().ensure()
    drill.server().ensure(pin=True)
    drill.server().release()
    assert drill.server().status().state == "running"


def test_stop_does_not_ask_the_holders(drill):
    drill.holder()
    assert drill.server().stop()
    assert drill.is_stopped()


def test_a_holder_brings_a_stopped_server_back_when_it_connects(drill):
    drill.server().ensure()
    drill.server().stop()
    with drill.server().connect("postgres") as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_release_may_be_called_twice_and_ensure_afterwards(drill):
    drill.server().ensure()
    drill.server().release()
    drill.server().release()
    assert drill.is_stopped()
    drill.server().ensure()
    assert drill.server().status().state == "running"


def test_two_objects_of_one_directory_are_one_hold(drill):
    drill.server().ensure()
    EmbeddedPostgres(drill.directory).ensure()
    EmbeddedPostgres(drill.directory).release()
    assert drill.is_stopped()


def test_a_fork_does_not_release_its_parents_hold(drill):
    code = """
child = os.fork()
if child == 0:
    server.release()
    sys.exit(0)  # runs the exit handlers
assert os.waitpid(child, 0)[1] == 0
print(server.status().state, flush=True)
"""
    child = drill.child(code)
    child.line()
    assert child.line() == "running"
    child.end()
    assert drill.is_stopped()


def test_a_fork_does_not_keep_its_parents_hold(drill):
    code = """
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
    time.sleep(1000)
    os._exit(0)
sys.stdout.close()
"""
    child = drill.child(code)
    child.line()
    forked = int(child.line())
    child.popen.wait()
    try:
        assert drill.is_stopped()
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_fork_of_a_killed_holder_does_not_count_as_one(drill):
    code = """
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(1000)
"""
    holder = drill.child(code)
    holder.line()
    forked = int(holder.line())
    try:
        holder.popen.kill()
        holder.popen.wait()
        other = drill.child()
        other.line()
        other.end()
        assert drill.is_stopped()
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_fork_that_connects_holds_the_server_itself(drill):
    code = """
ours, theirs = os.pipe()
child = os.fork()
if child == 0:
    connection = server.connect("postgres")
    os.write(theirs, b"x")
    time.sleep(1000)
os.read(ours, 1)
print(child, flush=True)
"""
    child = drill.child(code)
    child.line()
    forked = int(child.line())
    child.popen.wait()
    try:
        assert drill.server().status().state == "running"
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_fork_in_the_middle_of_a_decision_does_not_keep_the_lock(tmp_path):
    path = tmp_path / "lock"
    with locks.exclusive(path, locks.Deadline(10)):
        ours, theirs = os.pipe()
        forked = os.fork()
        if forked == 0:
            os.read(ours, 1)
            os._exit(0)
    try:
        with locks.exclusive(path, locks.Deadline(10)):
            pass
    finally:
        os.write(theirs, b"x")
        os.waitpid(forked, 0)
        os.close(ours)
        os.close(theirs)


def test_waiting_for_the_lock_ends_with_an_error_that_names_it(drill):
    drill.server()
    path = drill.directory / "lock"
    with (
        locks.exclusive(path, locks.Deadline(10)),
        pytest.raises(EmbeddedPostgresError, match=str(path)),
    ):
        drill.server().ensure(timeout_seconds=0.1)


def test_many_threads_ensure_one_server(drill):
    failures: list[Exception] = []

    def work() -> None:
        try:
            with drill.server().connect("postgres") as connection:
                connection.execute("select 1")
        except Exception as error:
            failures.append(error)

    drill.server()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (drill.directory / "server.log").read_text().count("starting PostgreSQL") == 1


def test_connect_asks_nothing_more_when_the_server_is_held_and_up(drill, monkeypatch):
    drill.server().ensure()
    monkeypatch.setattr(EmbeddedPostgres, "ensure", lambda *_, **__: pytest.fail("ensure was called"))
    drill.server().connect("postgres").close()


def test_connect_passes_its_arguments_on(drill):
    with drill.server().connect("postgres", autocommit=True, options="-c work_mem=7MB") as connection:
        assert connection.autocommit
        assert connection.execute("show work_mem").fetchone() == ("7MB",)


def test_connect_to_a_missing_database_fails_at_once_with_postgres_own_words(drill):
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        drill.server().connect("nowhere")


def test_an_engine_with_connect_as_its_creator_survives_the_servers_death(drill):
    drill.server().ensure()
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: drill.server().connect("postgres"), pool_pre_ping=True
    )
    try:
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("select 1")) == 1
        drill.kill_postmaster()
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("select 1")) == 1
    finally:
        engine.dispose()


def test_conninfo_and_url_lead_to_the_server(drill):
    drill.server().ensure()
    drill.server().ensure_database("my app")
    for address in (drill.server().conninfo("my app"), drill.server().url("my app")):
        with psycopg.connect(address) as connection:
            assert connection.execute("select current_database()").fetchone() == ("my app",)
    engine = sqlalchemy.create_engine(drill.server().url("my app").replace("://", "+psycopg://", 1))
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("select current_database()")) == "my app"
    engine.dispose()


def test_settings_for_another_server_in_the_environment_do_no_harm(drill):
    environment = {
        "PGHOST": "db.example.com",
        "PGPORT": "1",
        "PGUSER": "somebody",
        "PGSSLMODE": "require",
        "PGGSSENCMODE": "require",
        "PGCHANNELBINDING": "require",
        "PGTARGETSESSIONATTRS": "read-only",
        "PGOPTIONS": "-c default_toast_compression=lz4",
        "PGDATA": "/nowhere",
        "LC_ALL": "xx_XX.UTF-8",
    }
    child = drill.child("server.ensure_database('app')", environment=environment)
    child.line()
    assert child.end() == 0


def test_a_full_server_is_not_taken_for_a_dead_one(drill):
    drill.server().ensure()
    with drill.server().connect("postgres", autocommit=True) as connection:
        connection.execute("alter system set max_connections = 6")
    drill.server().stop()
    drill.server().ensure()
    pid = drill.postmaster()
    taken = []

    def take_all() -> None:
        while len(taken) < 20:
            taken.append(drill.server().connect("postgres"))

    try:
        with pytest.raises(psycopg.OperationalError, match=r"too many clients|remaining connection slots"):
            take_all()
        drill.server().ensure()
        assert drill.server().status().state == "running"
        assert drill.postmaster() == pid
    finally:
        for connection in taken:
            connection.close()


def test_a_database_is_created_once_whatever_its_name(drill):
    for name in ("app", "it's", 'a "quoted" name', "Ünïcode", "100%", "a" * 63):
        drill.server().ensure_database(name)
        drill.server().ensure_database(name)
        with drill.server().connect(name) as connection:
            assert connection.execute("select current_database()").fetchone() == (name,)


@pytest.mark.parametrize("name", ["", "a" * 64, "ü" * 32])
def test_a_name_that_postgres_would_cut_is_refused(tmp_path, name):
    with pytest.raises(EmbeddedPostgresError, match="1 to 63 bytes"):
        EmbeddedPostgres(tmp_path).ensure_database(name)


def test_many_processes_create_one_database(drill):
    children = [drill.child("server.ensure_database('app')") for _ in range(4)]
    assert [child.end() for child in children] == [0] * 4


def test_the_directory_comes_from_the_variable_or_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("TIMESTEP_DATA_DIR", str(tmp_path))
    assert default_directory() == tmp_path / "postgres" / "18"
    assert EmbeddedPostgres().directory == tmp_path / "postgres" / "18"
    monkeypatch.delenv("TIMESTEP_DATA_DIR")
    monkeypatch.setattr(server.platformdirs, "user_data_dir", lambda name: str(tmp_path / name))
    assert default_directory() == tmp_path / "timestep" / "postgres" / "18"


def test_windows_is_refused_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(server, "PLATFORM", "win32")
    refused = EmbeddedPostgres(tmp_path / "18")
    for call in (refused.ensure, refused.stop, refused.status, refused.conninfo):
        with pytest.raises(EmbeddedPostgresError, match="not supported on Windows") as caught:
            call()
        assert "PG_CONNECTION_URI" in caught.value.hint
    assert not Path(tmp_path / "18").exists()


def test_a_deleted_folder_does_not_disturb_the_exit(drill):
    child = drill.child("import shutil; server.stop(); shutil.rmtree(sys.argv[1])")
    _, errors = child.popen.communicate()
    assert (child.popen.returncode, errors) == (0, "")


def test_a_deleted_folder_is_made_anew(drill):
    code = """
import shutil
server.stop()
shutil.rmtree(sys.argv[1])
server.ensure()
print(server.status().state, flush=True)
time.sleep(1000)
"""
    child = drill.child(code)
    child.line()
    assert child.line() == "running"
    other = drill.child()
    other.line()
    other.end()  # not the last one out: the first has taken a hold on the new file
    assert drill.server().status().state == "running"
