"""What goes wrong with a server, and that the next caller sets it right."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

import psutil
import pytest

from timestep.embedded_postgres import cluster
from timestep.embedded_postgres.account import Account, choose_account
from timestep.embedded_postgres.layout import Layout
from timestep.errors import EmbeddedPostgresError

PR_SET_CHILD_SUBREAPER = 36

# The process says that it has come to the point, and then never gets further.
STUCK_AFTER_LAUNCH = """
from timestep.embedded_postgres.account import Account
launch = Account.launch
def stuck(*arguments, **options):
    print("launched", launch(*arguments, **options), flush=True)
    time.sleep(1000)
Account.launch = stuck
"""
TELLS_OF_INITDB = """
from timestep.embedded_postgres.account import Account
run = Account.run
def telling(self, arguments, **options):
    if arguments[0].endswith("initdb"):
        print("initdb", flush=True)
    return run(self, arguments, **options)
Account.run = telling
"""


def serves(drill) -> bool:
    with drill.server().connect("postgres") as connection:
        return connection.execute("select 1").fetchone() == (1,)


def test_a_killed_server_is_started_again_by_whoever_comes(drill):
    drill.holder()
    pid = drill.kill_postmaster()
    child = drill.child()
    assert int(child.line()) != pid
    child.end()


def test_a_killed_server_keeps_what_was_committed(drill):
    with drill.server().connect("postgres") as connection:
        connection.execute("create table kept as select 42 as number")
    drill.kill_postmaster()
    with drill.server().connect("postgres") as connection:
        assert connection.execute("select number from kept").fetchone() == (42,)


@pytest.fixture
def zombies(drill):
    """Keep dead servers as zombies: this process adopts them and collects them when the test ends."""
    if sys.platform != "linux":
        pytest.skip("needs a process that adopts orphans")
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    drill.server().release()
    assert drill.is_stopped()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, 0)


@pytest.mark.usefixtures("zombies")
def test_a_killed_server_that_nobody_collects_is_started_again(drill):
    drill.server().ensure()
    zombie = drill.kill_postmaster()
    assert psutil.Process(zombie).status() == psutil.STATUS_ZOMBIE
    assert drill.server().status().state == "stopped"
    assert serves(drill)
    assert drill.postmaster() != zombie


@pytest.mark.usefixtures("zombies")
def test_a_start_that_failed_and_that_nobody_collects_says_why_at_once(drill):
    drill.server()
    settings = drill.directory / "data" / "postgresql.conf"
    whole = settings.read_text()
    settings.write_text(whole + "shared_buffers = nonsense\n")
    with pytest.raises(EmbeddedPostgresError, match="shared_buffers"):
        drill.server().ensure(timeout_seconds=20)
    settings.write_text(whole)


def leave_pid_file(drill, text: str) -> None:
    """Leave the file as a dead server would, with the shared memory of one that has really been there."""
    drill.server().ensure()
    real = (drill.directory / "data" / "postmaster.pid").read_text().splitlines()
    drill.kill_postmaster()
    lines = text.splitlines() + real[len(text.splitlines()) :] if text else []
    (drill.directory / "data" / "postmaster.pid").write_text("\n".join(lines) + ("\n" if lines else ""))
    drill.server().release()


@pytest.fixture
def stranger():
    """A process of this user that has nothing to do with Postgres."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_got_the_servers_id_is_neither_believed_nor_harmed(drill, stranger):
    leave_pid_file(drill, str(stranger.pid))
    assert drill.server().status().state == "stopped"
    assert not drill.server().stop()
    assert serves(drill)
    drill.server().release()
    assert stranger.poll() is None


def test_a_process_that_got_the_id_in_the_sockets_lock_does_not_prevent_a_start(drill, stranger):
    leave_pid_file(drill, str(stranger.pid))
    lock = drill.directory / "socket" / ".s.PGSQL.5432.lock"
    lock.write_text("\n".join([str(stranger.pid), *lock.read_text().splitlines()[1:]]) + "\n")
    assert serves(drill)


def test_the_postgres_of_another_folder_with_the_same_id_is_left_alone(drill):
    other = drill.server(drill.root / "other" / "18")
    other.ensure()
    pid = other.status().pid
    leave_pid_file(drill, str(pid))
    assert drill.server().status().state == "stopped"
    assert not drill.server().stop()
    assert serves(drill)
    drill.server().release()
    assert other.status().pid == pid


def test_a_cut_off_pid_file_does_not_prevent_a_start(drill):
    for text in ("", "12", "not a number\n/nowhere\n"):
        drill.server().ensure()
        drill.kill_postmaster()
        (drill.directory / "data" / "postmaster.pid").write_text(text)
        assert serves(drill)


def test_an_empty_pid_file_beside_a_running_server_does_no_harm(drill):
    drill.server().ensure()
    file = drill.directory / "data" / "postmaster.pid"
    whole = file.read_text()
    try:
        file.write_text("")
        drill.server().ensure()
        child = drill.child()
        child.line()
        child.end()
        assert serves(drill)
    finally:
        file.write_text(whole)


def test_the_interlock_survives_the_repair_of_a_stale_pid_file(drill, stranger, monkeypatch):
    leave_pid_file(drill, str(stranger.pid))
    seen = []
    launch = Account.launch

    def watch(self, arguments, **options):
        seen.append((drill.directory / "data" / "postmaster.pid").read_text().splitlines())
        return launch(self, arguments, **options)

    before = (drill.directory / "data" / "postmaster.pid").read_text().splitlines()
    monkeypatch.setattr(Account, "launch", watch)
    assert serves(drill)
    assert seen[0] == [str(cluster.DEAD_PID), *before[1:]]


def wait_for_initdb(drill, until) -> None:
    until(lambda: any(drill.directory.glob("creating.*/global")), "initdb at work")


def test_a_holder_killed_during_initdb_leaves_nothing_half_made(drill, until):
    drill.server(has_cluster=False)
    child = drill.child(before=TELLS_OF_INITDB)
    assert child.line() == "initdb"
    wait_for_initdb(drill, until)
    child.kill()  # initdb itself lives on, with the lock
    assert serves(drill)
    assert not list(drill.directory.glob("creating.*"))


def test_initdb_killed_with_its_caller_leaves_nothing_half_made(drill, until):
    drill.server(has_cluster=False)
    child = drill.child(before=TELLS_OF_INITDB)
    assert child.line() == "initdb"
    wait_for_initdb(drill, until)
    family = psutil.Process(child.popen.pid).children(recursive=True)
    child.popen.kill()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            process.kill()
    child.popen.communicate()
    assert not (drill.directory / "data").exists()
    assert serves(drill)
    assert not list(drill.directory.glob("creating.*"))


def test_initdb_killed_alone_is_an_error_and_can_be_repeated(drill, monkeypatch):
    run = Account.run

    def failing(self, arguments, **options):
        if arguments[0].endswith("initdb"):
            arguments = ["/bin/sh", "-c", "kill -9 $$"]
        return run(self, arguments, **options)

    drill.server(has_cluster=False)
    with monkeypatch.context() as patch:
        patch.setattr(Account, "run", failing)
        with pytest.raises(EmbeddedPostgresError, match="could not be made") as caught:
            drill.server().ensure()
    assert str(drill.directory) in str(caught.value)
    assert not list(drill.directory.glob("creating.*"))
    assert not (drill.directory / "data").exists()
    assert serves(drill)


def test_a_holder_killed_during_the_start_leaves_a_server_that_is_used_and_stopped(drill):
    child = drill.child(before=STUCK_AFTER_LAUNCH)
    launched = int(child.line().split()[1])
    child.kill()
    assert serves(drill)
    assert drill.postmaster() == launched
    drill.server().release()
    assert drill.is_stopped()


def test_a_server_killed_during_its_start_is_started_again(drill):
    child = drill.child(before=STUCK_AFTER_LAUNCH)
    launched = int(child.line().split()[1])
    os.kill(launched, signal.SIGKILL)
    child.kill()
    assert serves(drill)
    assert drill.postmaster() != launched


def test_a_server_that_does_not_answer_is_left_alone_and_named_in_the_error(drill, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_SECONDS", 2)
    drill.server().ensure()
    pid = drill.postmaster()
    drill.server().release()
    pid = int(drill.child("time.sleep(1000)").line())
    os.kill(pid, signal.SIGSTOP)
    try:
        assert drill.server().status().state == "starting"
        with pytest.raises(EmbeddedPostgresError, match=r"has not answered within 0\.5 s"):
            drill.server().ensure(timeout_seconds=0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert serves(drill)
    assert drill.postmaster() == pid


def test_a_server_that_refuses_is_quoted_in_the_error(drill):
    drill.server()
    (drill.directory / "data" / "pg_hba.conf").write_text("local all all reject\n")
    with pytest.raises(EmbeddedPostgresError, match=r"pg_hba\.conf rejects connection"):
        drill.server().ensure(timeout_seconds=2)
    assert drill.server().status().state == "starting"
    assert drill.server().stop()


def test_a_server_that_cannot_start_says_why_at_once(drill):
    drill.server()
    settings = drill.directory / "data" / "postgresql.conf"
    whole = settings.read_text()
    settings.write_text(whole + "shared_buffers = nonsense\n")
    with pytest.raises(EmbeddedPostgresError, match="shared_buffers") as caught:
        drill.server().ensure(timeout_seconds=20)
    assert "server.log" in caught.value.hint
    settings.write_text(whole)
    assert serves(drill)


def test_a_failed_start_does_not_leave_a_hold(drill):
    drill.server()
    settings = drill.directory / "data" / "postgresql.conf"
    whole = settings.read_text()
    settings.write_text(whole + "shared_buffers = nonsense\n")
    with pytest.raises(EmbeddedPostgresError):
        drill.server().ensure()
    settings.write_text(whole)
    child = drill.child()
    child.line()
    child.end()
    assert drill.is_stopped()


def test_a_cluster_of_another_major_version_is_refused_with_both_named(drill):
    drill.server()
    (drill.directory / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match=r"by Postgres 17; .* Postgres 18") as caught:
        drill.server().ensure()
    assert str(drill.directory / "data") in str(caught.value)
    assert "TIMESTEP_DATA_DIR" in caught.value.hint


def test_the_server_of_another_folder_on_our_socket_is_not_taken_for_ours(drill):
    drill.server().ensure()
    other = drill.server(drill.root / "other" / "18")
    (other.directory / "socket").symlink_to(drill.directory / "socket")
    assert other.status().state == "stopped"
    with pytest.raises(EmbeddedPostgresError, match="another folder answers"):
        other.ensure()
    assert serves(drill)


def test_a_moved_folder_is_served_from_its_new_place(drill):
    with drill.server().connect("postgres") as connection:
        connection.execute("create table kept as select 42 as number")
    drill.server().release()
    moved = drill.server(drill.root / "moved" / "18", has_cluster=False)
    drill.directory.rename(moved.directory)
    with moved.connect("postgres") as connection:
        assert connection.execute("select number from kept").fetchone() == (42,)


def test_a_long_log_is_put_aside_when_the_server_starts(drill, monkeypatch):
    monkeypatch.setattr(cluster, "LOG_LIMIT_BYTES", 100)
    drill.server()
    (drill.directory / "server.log").write_text("x" * 101)
    drill.server().ensure()
    assert (drill.directory / "server.log.1").read_text() == "x" * 101
    assert "ready to accept" in (drill.directory / "server.log").read_text()


def test_the_server_does_not_hear_the_terminals_interrupt(drill):
    child = drill.holder()
    pid = drill.postmaster()
    assert os.getsid(pid) != os.getsid(child.popen.pid)
    assert psutil.Process(pid).ppid() != child.popen.pid


def test_the_server_keeps_nothing_of_its_starter_open(drill):
    code = "import subprocess; time.sleep(1000)"
    child = drill.child(code)
    pid = int(child.line())
    assert not choose_account().is_switched
    links = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    layout = Layout(directory=drill.directory)
    assert str(layout.lock) not in links
    assert str(layout.holders) not in links
    assert not [link for link in links if link.startswith("pipe:") and link in pipes_of(os.getpid())]


def pipes_of(pid: int) -> set[str]:
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return {link for link in found if link.startswith("pipe:")}
