"""The schema: what the migrations make, and which schemas are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from timestep.errors import DatabaseNotReadyError
from timestep.ids import SCHEMA
from timestep.store.connection import Database, open_database
from timestep.store.migrations import (
    HEAD_REVISION,
    check_schema,
    migrate,
    migrations_directory,
    stored_revision,
)
from timestep.store.tables import metadata

MIGRATE = """
import sys
from timestep.store.connection import open_database
from timestep.store.migrations import migrate
database = open_database(sys.argv[1], application="test")
print("ready", flush=True)
sys.stdin.readline()
print(migrate(database))
database.close()
"""


def test_the_tables_and_the_migrations_agree(database: Database) -> None:
    options = {
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
        "version_table_schema": SCHEMA,
        "compare_type": True,
        "compare_server_default": True,
    }
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert differences == []


def test_every_table_and_column_has_a_comment(database: Database) -> None:
    tables = sa.MetaData(schema=SCHEMA)
    tables.reflect(database.engine)

    silent = [table.name for table in tables.tables.values() if not table.comment]
    silent += [str(column) for table in tables.tables.values() for column in table.columns if not column.comment]

    assert "timestep.alembic_version" in tables.tables
    assert silent == []


def test_the_newest_revision_is_the_one_that_the_code_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD_REVISION]


def test_migrating_again_does_nothing_and_does_not_load_alembic(database: Database, checkout: Path) -> None:
    code = MIGRATE + "assert not [name for name in sys.modules if name.partition('.')[0] == 'alembic']"
    command = [sys.executable, "-c", code, database.url]
    result = subprocess.run(command, input="\n", capture_output=True, text=True, cwd=checkout, check=False)

    assert (result.stdout.split(), result.stderr) == (["ready", "False"], "")


def test_eight_processes_migrate_at_once_and_one_does_it(new_url: Callable[[], str], checkout: Path) -> None:
    url = new_url()
    command = [sys.executable, "-c", MIGRATE, url]
    pipe = subprocess.PIPE
    starters = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=checkout) for _ in range(8)
    ]
    for starter in starters:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("\n")
        starter.stdin.flush()
    answers = [starter.communicate() for starter in starters]

    assert sorted(answers) == [("False\n", "")] * 7 + [("True\n", "")]


def test_a_database_without_a_schema_is_refused_until_it_is_migrated(empty_database: Database) -> None:
    assert stored_revision(empty_database) is None
    with pytest.raises(DatabaseNotReadyError, match="has no Timestep schema") as refusal:
        check_schema(empty_database)
    assert "timestep db migrate" in refusal.value.hint

    assert migrate(empty_database) is True
    check_schema(empty_database)


def test_an_older_schema_is_refused_with_both_revisions(database: Database) -> None:
    set_revision(database, "0000")

    with pytest.raises(DatabaseNotReadyError, match=rf"is at schema revision 0000.* needs {HEAD_REVISION}") as refusal:
        check_schema(database)
    assert "timestep db migrate" in refusal.value.hint


@pytest.mark.parametrize("verb", [check_schema, migrate])
@pytest.mark.parametrize("revision", ["9999", "made elsewhere"])
def test_a_newer_schema_is_refused_with_both_revisions(
    database: Database, verb: Callable[[Database], object], revision: str
) -> None:
    set_revision(database, revision)

    with pytest.raises(DatabaseNotReadyError, match=rf"{revision}, newer than .* knows {HEAD_REVISION}") as refusal:
        verb(database)
    assert "upgrade" in refusal.value.hint.lower()


def test_a_failed_migration_leaves_nothing_behind(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "100% broken"
    (broken / "versions").mkdir(parents=True)
    good = migrations_directory()
    (broken / "env.py").write_text((good / "env.py").read_text())
    for version in (good / "versions").glob("*.py"):
        text = version.read_text().replace("    _segments()\n", "    1 / 0\n", 1)
        (broken / "versions" / version.name).write_text(text)
    monkeypatch.setattr("timestep.store.migrations.migrations_directory", lambda: broken)

    with pytest.raises(ZeroDivisionError):
        migrate(empty_database)
    assert not sa.inspect(empty_database.engine).has_schema(SCHEMA)

    monkeypatch.undo()
    assert migrate(empty_database) is True


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    database = open_database("postgresql://someone:hunter2@127.0.0.1:1/orders", application="test")

    with pytest.raises(DatabaseNotReadyError, match=r"someone:\*\*\*@127\.0\.0\.1:1/orders") as refusal:
        migrate(database)
    assert "hunter2" not in str(refusal.value)
    assert "PG_CONNECTION_URI" in refusal.value.hint
    database.close()


def test_the_schema_page_is_current(database: Database, checkout: Path) -> None:
    command = [sys.executable, "docs/generate_schema.py", "--check", "--database-url", database.url]
    environment = {"PYTHONPATH": str(checkout)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=checkout, env=environment, check=False)

    assert (result.returncode, result.stderr) == (0, "")


def set_revision(database: Database, revision: str) -> None:
    def change(connection: sa.Connection) -> None:
        connection.execute(sa.text(f"update {SCHEMA}.alembic_version set version_num = :new"), {"new": revision})

    database.run_sync(change)
