"""`timestep doctor`: it says what is wrong and what to type, and changes nothing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, Timestep

from timestep.cli import doctor
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.store.connection import Database, open_database
from timestep.store.executors import LOCK_PREFIX, ExecutorRow, insert_executor
from timestep.store.migrations import HEAD_REVISION, migrate

REPOSITORY = Path(doctor.__file__).parents[2]
NOBODY_HOME = "postgresql://ann:secret@127.0.0.1:1/shop"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("doctor") / "postgres" / "18")
    server.ensure()
    yield server
    server.release()
    server.stop()


@pytest.fixture
def database(server: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[Database]:
    name = str(request.node.name)[:50]
    server.ensure_database(name)
    database = open_database(server.url(name), application="test")
    yield database
    database.close()


def report(run: Ended) -> dict[str, dict[str, Any]]:
    loaded = json.loads(run.stdout)
    return {one["name"]: one for one in (*loaded["settings"], *loaded["checks"])}


def test_a_fresh_machine_is_ready_and_stays_as_it_is(timestep_command: Timestep, tmp_path: Path) -> None:
    run = timestep_command("doctor", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    lines = report(run)
    assert json.loads(run.stdout)["status"] == "ok"
    assert lines["PG_CONNECTION_URI"]["value"] == "embedded server"
    assert lines["TIMESTEP_APP_NAME"]["source"] == "TIMESTEP_APP_NAME"
    assert lines["embedded server"]["detail"].startswith("stopped: starts by itself on first use")
    assert lines["models"]["status"] == "warn"
    assert list(tmp_path.iterdir()) == []


def test_text_has_a_word_a_line_and_a_hint_below(timestep_command: Timestep) -> None:
    run = timestep_command("doctor")
    lines = [line for line in run.stdout.splitlines() if line.startswith("  ") and "hint:" not in line]
    assert {line.split()[0] for line in lines} == {"ok", "warn"}
    assert "hint: Set OPENAI_API_KEY, or start Ollama." in run.stdout


def test_keys_are_told_and_never_shown(timestep_command: Timestep) -> None:
    run = timestep_command("doctor", variables={"OPENAI_API_KEY": "sk-hidden", "OLLAMA_API_KEY": "ol-hidden"})
    assert run.returncode == 0
    assert "hidden" not in run.stdout + run.stderr
    assert "warn" not in run.stdout


def test_a_malformed_setting_fails_with_what_to_write(timestep_command: Timestep) -> None:
    run = timestep_command("doctor", variables={"TIMESTEP_POOL_SIZE": "many"})
    assert run.returncode == 1
    assert "fail  TIMESTEP_POOL_SIZE" in run.stdout
    assert "hint: Write TIMESTEP_POOL_SIZE as a whole number from 2 to 1000." in run.stdout


def test_two_databases_fail_with_both_named(timestep_command: Timestep) -> None:
    other = "postgresql://ann:secret@127.0.0.1:1/other"
    run = timestep_command("doctor", variables={"PG_CONNECTION_URI": NOBODY_HOME, "TIMESTEP_DB_URL": other})
    assert run.returncode == 6
    assert "secret" not in run.stdout + run.stderr
    assert "PG_CONNECTION_URI names" in run.stdout
    assert "TIMESTEP_DB_URL names" in run.stdout


def test_a_database_that_does_not_answer_fails_with_6(timestep_command: Timestep) -> None:
    run = timestep_command("doctor", "--json", variables={"PG_CONNECTION_URI": NOBODY_HOME})
    assert run.returncode == 6
    assert "secret" not in run.stdout + run.stderr
    check = report(run)["database"]
    assert check["status"] == "fail"
    assert "Start the server" in check["hint"]


def test_a_database_without_schemas_is_ok_unless_migrations_are_off(
    timestep_command: Timestep, database: Database
) -> None:
    run = timestep_command("doctor", "--json", variables={"PG_CONNECTION_URI": database.url})
    assert run.returncode == 0
    assert "made on first use" in report(run)["schema timestep"]["detail"]
    assert "made on first use" in report(run)["schema dbos"]["detail"]
    off = {"PG_CONNECTION_URI": database.url, "TIMESTEP_RUN_MIGRATIONS": "0"}
    run = timestep_command("doctor", "--json", variables=off)
    assert run.returncode == 6
    assert report(run)["schema timestep"]["status"] == "fail"
    assert "timestep db migrate" in report(run)["schema timestep"]["hint"]


def test_a_migrated_database_shows_its_revision_and_executors(timestep_command: Timestep, database: Database) -> None:
    migrate(database)
    row = ExecutorRow(id="executor-7", application_version="1", host="kitchen", pid=1, process_space="", agents=[])
    database.run_sync(insert_executor, row)
    database.run_sync(insert_executor, replace(row, id="executor-8"))  # without its lock it is gone
    with database.connect_alone() as connection:
        connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [f"{LOCK_PREFIX}executor-7"])
        run = timestep_command("doctor", "--json", variables={"PG_CONNECTION_URI": database.url})
    assert run.returncode == 0
    lines = report(run)
    assert lines["schema timestep"]["detail"] == f"revision {HEAD_REVISION}"
    assert lines["executors"]["detail"] == "1: executor-7 on kitchen"
    assert lines["database"]["detail"].startswith("running, Postgres 18")


@pytest.mark.parametrize(("revision", "code", "status"), [("0000", 0, "warn"), ("9999", 6, "fail")])
def test_a_schema_that_does_not_fit_is_told(
    timestep_command: Timestep, database: Database, revision: str, code: int, status: str
) -> None:
    migrate(database)
    database.run_sync(
        lambda connection: (
            connection.exec_driver_sql(f"update timestep.alembic_version set version_num = '{revision}'") and None
        )
    )
    run = timestep_command("doctor", "--json", variables={"PG_CONNECTION_URI": database.url})
    assert run.returncode == code
    assert report(run)["schema timestep"]["status"] == status
    assert revision in report(run)["schema timestep"]["detail"]


def test_the_supported_versions_are_those_of_the_project() -> None:
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    for name, (oldest, first_newer) in doctor.SUPPORTED.items():
        pin = f"{name}>={'.'.join(map(str, oldest))}"
        if first_newer is not None:
            pin += f",<{'.'.join(map(str, first_newer))}"
        assert pin in wanted


def test_a_package_of_another_version_fails_with_the_command_that_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"dbos": "3.5.0", "openai-agents": "0.24.7", "ollama": "0.5.9"}
    monkeypatch.setattr(metadata, "version", installed.__getitem__)
    checks = {check.name: check for check in doctor._check_versions()}
    assert [checks[name].status for name in installed] == ["fail", "ok", "fail"]
    assert checks["dbos"].hint == "Run `pip install 'dbos>=3.4,<3.5'`."
