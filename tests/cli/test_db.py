"""`timestep db`: the embedded server, and databases that are not ours to start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from command_line import Ended, Timestep, run_process

from timestep import cli
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.settings import local_server
from timestep.settings.local_server import find_local_database

REPOSITORY = Path(cli.__file__).parents[2]
NOBODY_HOME = {"PG_CONNECTION_URI": "postgresql://ann:secret@127.0.0.1:1/shop"}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[EmbeddedPostgres]:
    """The server of the commands' data directory; stopped at the end."""
    server = EmbeddedPostgres(Path(environment["TIMESTEP_DATA_DIR"]) / "postgres" / "18")
    yield server
    server.release()
    server.stop()


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that plays the configured one."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("own") / "postgres" / "18")
    server.ensure()
    yield server
    server.release()
    server.stop()


def test_start_keeps_the_server_until_stop(timestep_command: Timestep, server: EmbeddedPostgres) -> None:
    assert json.loads(timestep_command("db", "status", "--json").stdout)["state"] == "stopped"
    started = timestep_command("db", "start")
    assert (started.returncode, started.stdout) == (0, "")
    assert "until `timestep db stop`" in started.stderr
    status = json.loads(timestep_command("db", "status", "--json").stdout)
    assert (status["kind"], status["state"], status["directory"]) == (
        "embedded",
        "running",
        str(server.directory),
    )
    assert status["pid"] == server.status().pid
    url = timestep_command("db", "url")
    assert (url.stdout, url.stderr) == (status["url"] + "\n", "")
    with psycopg.connect(url.stdout.strip()) as connection:
        assert connection.execute("select current_database()").fetchone() == ("test-shop",)
    stopped = timestep_command("db", "stop")
    assert (stopped.returncode, stopped.stderr) == (0, "The embedded Postgres is stopped.\n")
    assert timestep_command("db", "stop").stderr == "The embedded Postgres was not running.\n"
    assert server.status().state == "stopped"
    assert "timestep db start" in timestep_command("db", "url").stderr


def test_looking_starts_and_makes_nothing(timestep_command: Timestep, tmp_path: Path) -> None:
    for words in (["status"], ["status", "--json"], ["url"]):
        assert timestep_command("db", *words).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_looking_at_a_running_server_makes_no_database(timestep_command: Timestep, server: EmbeddedPostgres) -> None:
    server.ensure()
    assert json.loads(timestep_command("db", "status", "--json").stdout)["state"] == "missing"
    assert "its database is made on first use" in timestep_command("doctor").stdout
    with server.connect("postgres") as connection:
        assert connection.execute("select 1 from pg_database where datname = 'test-shop'").fetchone() is None


def test_migrate_makes_both_schemas_and_may_be_repeated(timestep_command: Timestep, server: EmbeddedPostgres) -> None:
    first = timestep_command("db", "migrate")
    assert (first.returncode, first.stdout) == (0, "")
    assert "now at revision" in first.stderr
    assert "already at revision" in timestep_command("db", "migrate").stderr
    with server.connect("test-shop") as connection:
        rows = connection.execute("select schemaname, count(*) from pg_tables group by 1").fetchall()
    assert {"dbos", "timestep"} <= {name for name, _ in rows}


def test_psql_opens_the_database_and_passes_arguments_and_exit_code_on(
    environment: dict[str, str], server: EmbeddedPostgres, tmp_path: Path
) -> None:
    def psql(*words: str) -> Ended:
        return run_process("db", "psql", *words, folder=tmp_path, environment=environment)

    run = psql("-At", "--quiet", "-c", "select current_database()")
    assert (run.returncode, run.stdout, run.stderr) == (0, "test-shop\n", "")
    assert psql("-c", "select nonsense").returncode == 1
    assert server.status().state == "stopped"


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_a_configured_database_is_not_ours_to_start_or_stop(timestep_command: Timestep, verb: str) -> None:
    run = timestep_command("db", verb, variables=NOBODY_HOME)
    assert (run.returncode, run.stdout) == (2, "")
    assert "from PG_CONNECTION_URI" in run.stderr
    assert f"not Timestep's to {verb}" in run.stderr
    assert "secret" not in run.stderr


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["migrate"], ["psql"]])
def test_a_configured_database_that_does_not_answer_ends_with_6(timestep_command: Timestep, words: list[str]) -> None:
    run = timestep_command("db", *words, variables=NOBODY_HOME)
    assert run.returncode == 6
    assert "secret" not in run.stdout + run.stderr
    if "--json" in words:
        assert json.loads(run.stdout)["state"] == "unreachable"
        assert run.stderr == ""
    else:
        assert "error: The database postgresql://ann:***@127.0.0.1:1/shop does not answer" in run.stderr
        assert "hint: " in run.stderr


def test_a_configured_database_is_used_by_url_status_migrate_and_psql(
    timestep_command: Timestep, environment: dict[str, str], own_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    own_server.ensure_database("own")
    variables = {"PG_CONNECTION_URI": own_server.url("own").replace("postgresql:", "postgres:")}
    assert timestep_command("db", "url", variables=variables).stdout == own_server.url("own") + "\n"
    status = json.loads(timestep_command("db", "status", "--json", variables=variables).stdout)
    assert (status["kind"], status["state"], status["source"]) == (
        "configured",
        "running",
        "PG_CONNECTION_URI",
    )
    assert timestep_command("db", "migrate", variables=variables).returncode == 0
    query = "select count(*) from timestep.runs"
    psql = run_process("db", "psql", "-Atc", query, folder=tmp_path, environment=environment | variables)
    assert psql.stdout == "0\n"
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_password_is_not_on_the_command_line_of_psql(
    environment: dict[str, str], own_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    own_server.ensure_database("own")
    fake = tmp_path / "bin" / "psql"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "arguments: $*"\necho "password: $PGPASSWORD"\n')
    fake.chmod(0o755)
    url = own_server.url("own").replace("postgres@", "postgres:secret%40@")
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    environment |= {"PG_CONNECTION_URI": url, "PATH": path}
    run = run_process("db", "psql", "--more", folder=tmp_path, environment=environment)
    arguments, password = run.stdout.splitlines()
    assert password == "password: secret@"
    assert "secret" not in arguments
    assert arguments.endswith("--more")


@pytest.mark.parametrize("is_configured", [True, False])
def test_the_projects_config_works_with_dbos_migrate(
    own_server: EmbeddedPostgres,
    server: EmbeddedPostgres,
    environment: dict[str, str],
    tmp_path: Path,
    is_configured: bool,
) -> None:
    project = tmp_path / "project"
    (project / "bin").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dbos-config.yaml", project)
    timestep = project / "bin" / "timestep"
    timestep.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m timestep "$@"\n')
    timestep.chmod(0o755)
    environment |= {"PATH": f"{timestep.parent}{os.pathsep}{os.environ['PATH']}"}
    if is_configured:
        own_server.ensure_database("dbos")
        environment |= {"PG_CONNECTION_URI": own_server.url("dbos")}
    run = subprocess.run(
        [sys.executable, "-c", "from dbos.cli.cli import app; app()", "migrate"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Schema timestep is now at revision" in run.stderr
    used, name = (own_server, "dbos") if is_configured else (server, "test-shop")
    with used.connect(name) as connection:
        for table in ("dbos.workflow_status", "timestep.runs"):
            assert connection.execute(f"select count(*) from {table}").fetchone() == (0,)


def test_dbos_start_runs_the_workflows_of_the_project(environment: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "dbos-config.yaml", tmp_path)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "__init__.py").touch()  # a package, so that it comes before that of the checkout
    (tmp_path / "workflows" / "__main__.py").write_text("print('the workflows run')")
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(
        [sys.executable, "-c", "from dbos.cli.cli import app; app()", "start"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, "the workflows run" in run.stdout) == (0, True), run.stdout + run.stderr


def test_a_local_server_is_used_when_it_lets_the_user_into_the_database(
    own_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket_folder = psycopg.conninfo.conninfo_to_dict(own_server.conninfo())["host"]
    monkeypatch.setattr(local_server, "_tcp_answers", lambda port: False)
    monkeypatch.setenv("PGUSER", "stranger")
    refused = find_local_database(folders=(str(socket_folder),))
    assert (refused.url, refused.is_reported) == (None, False)
    assert "does not let this user" in (refused.problem or "")
    monkeypatch.setenv("PGUSER", "postgres")
    missing = find_local_database(folders=(str(socket_folder),))
    assert (missing.url, missing.is_reported) == (None, True)
    assert f"createdb -h {socket_folder} -p 5432 timestep" in (missing.hint or "")
    own_server.ensure_database("timestep")
    found = find_local_database(folders=(str(socket_folder),))
    assert found.source == "local server on port 5432"
    with psycopg.connect(found.url or "") as connection:
        assert connection.execute("select current_database()").fetchone() == ("timestep",)
