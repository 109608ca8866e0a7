"""Settings: where each value comes from, what is refused, and what is never shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_settings import describe, write_config

from timestep.errors import SettingsError
from timestep.records import RateLimit
from timestep.settings import (
    Settings,
    current_settings,
    reset_settings,
    resolve_settings,
    set_current_settings,
)

URL = "postgresql://ann:secret@db.example:5433/shop"
OTHER = "postgresql://ann:secret@db.example:5433/other"

Resolve = Callable[..., Settings]


def test_without_any_source_the_defaults_hold(resolve: Resolve) -> None:
    settings = resolve()
    assert (settings.name, settings.database_url, settings.database_source) == (
        "timestep",
        None,
        "embedded server",
    )
    assert (settings.application_version, settings.executor_id) == (None, None)
    assert (settings.max_result_bytes, settings.executor_threads, settings.tool_threads) == (
        8 * 1024**2,
        8,
        32,
    )
    assert (settings.pool_size, settings.run_migrations, settings.takeover_seconds) == (20, True, 5.0)
    assert settings.log_level == "WARNING"
    assert settings.data_directory.is_absolute()


@pytest.mark.parametrize(
    ("field", "variable", "written"),
    [
        ("name", "TIMESTEP_APP_NAME", (("argument", "environment", "file-name"), None)),
        ("application_version", "TIMESTEP_APPLICATION_VERSION", (("3", "2", "1"), None)),
        ("executor_id", "TIMESTEP_EXECUTOR_ID", (("e3", "e2", "e1"), None)),
        ("max_result_bytes", "TIMESTEP_MAX_RESULT_BYTES", (("3000", "2000", "1024"), (3000, 2000, 1024))),
        ("executor_threads", "TIMESTEP_EXECUTOR_THREADS", (("3", "2", "1"), (3, 2, 1))),
        ("tool_threads", "TIMESTEP_TOOL_THREADS", (("3", "2", "1"), (3, 2, 1))),
        ("pool_size", "TIMESTEP_POOL_SIZE", (("4", "3", "2"), (4, 3, 2))),
        ("run_migrations", "TIMESTEP_RUN_MIGRATIONS", (("yes", "off", "TRUE"), (True, False, True))),
        ("takeover_seconds", "TIMESTEP_TAKEOVER_SECONDS", (("3", "2.5", "0.1"), (3.0, 2.5, 0.1))),
        ("log_level", "TIMESTEP_LOG_LEVEL", (("debug", "info", "error"), ("DEBUG", "INFO", "ERROR"))),
        (
            "rate_limits",
            "TIMESTEP_RATE_LIMITS",
            (
                (
                    '{"m": {"requests_per_minute": 3}}',
                    '{"m": {"tokens_per_minute": 2}}',
                    '{"x/": {"tokens_per_minute": 1}}',
                ),
                (
                    {"m": RateLimit(requests_per_minute=3)},
                    {"m": RateLimit(tokens_per_minute=2)},
                    {"x/": RateLimit(tokens_per_minute=1)},
                ),
            ),
        ),
    ],
)
def test_argument_beats_environment_beats_file(
    resolve: Resolve, tmp_path: Path, field: str, variable: str, written: tuple[Any, Any]
) -> None:
    texts, values = written
    argument, environment, file = values or texts
    line = f"name: {texts[2]}" if field == "name" else f"timestep: {{{field}: {texts[2]}}}"
    write_config(tmp_path, line)
    assert getattr(resolve(), field) == file
    assert getattr(resolve({variable: ""}), field) == file
    assert getattr(resolve({variable: texts[1]}), field) == environment
    assert getattr(resolve({variable: texts[1]}, **{field: argument}), field) == argument


def test_the_data_directory_may_be_relative_to_where_it_is_written(resolve: Resolve, tmp_path: Path) -> None:
    write_config(tmp_path, "timestep: {data_directory: data}")
    inner = tmp_path / "inner"
    inner.mkdir()
    assert resolve(directory=inner).data_directory == tmp_path / "data"
    assert resolve({"TIMESTEP_DATA_DIR": "mine"}, directory=inner).data_directory == inner / "mine"
    assert resolve({"TIMESTEP_DATA_DIR": "~/mine"}).data_directory == Path.home() / "mine"


SOURCES: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("the argument", "configure_dbos(system_database_url=...)", {}, {"database_url": URL}),
    ("PG_CONNECTION_URI", "PG_CONNECTION_URI", {"PG_CONNECTION_URI": URL}, {}),
    ("TIMESTEP_DB_URL", "TIMESTEP_DB_URL", {"TIMESTEP_DB_URL": URL}, {}),
    ("DBOS here", "the DBOS configured in this process", {}, {"dbos_url": URL}),
    ("DBOS's variable", "DBOS_SYSTEM_DATABASE_URL", {"DBOS_SYSTEM_DATABASE_URL": URL}, {}),
]


@pytest.mark.parametrize("first", range(len(SOURCES)))
def test_the_database_comes_from_the_first_source_that_names_one(resolve: Resolve, tmp_path: Path, first: int) -> None:
    write_config(tmp_path, f"system_database_url: {URL}")
    environ: dict[str, str] = {}
    arguments: dict[str, str] = {"database_source": "configure_dbos(system_database_url=...)"}
    for _, _, variables, given_arguments in SOURCES[first:]:
        environ |= variables
        arguments |= given_arguments
    settings = resolve(environ, **arguments)
    assert (settings.database_url, settings.database_source) == (URL, SOURCES[first][1])


def test_the_database_in_dbos_config_comes_last_of_the_named(resolve: Resolve, tmp_path: Path) -> None:
    write_config(tmp_path, f"system_database_url: {URL}")
    assert resolve().database_source == "dbos-config.yaml system_database_url"


@pytest.mark.parametrize("first", range(len(SOURCES)))
def test_two_sources_that_name_different_databases_are_refused_with_both_named(
    resolve: Resolve, tmp_path: Path, first: int
) -> None:
    write_config(tmp_path, f"system_database_url: {OTHER}")
    _, source, environ, arguments = SOURCES[first]
    with pytest.raises(SettingsError) as caught:
        resolve(environ, database_source=SOURCES[0][1], **arguments)
    assert source in str(caught.value)
    assert "dbos-config.yaml system_database_url" in str(caught.value)
    assert "/shop" in str(caught.value)
    assert "/other" in str(caught.value)
    assert "secret" not in str(caught.value) + caught.value.hint
    assert "Remove" in caught.value.hint


def test_the_older_variable_may_repeat_the_newer_but_not_contradict_it(resolve: Resolve) -> None:
    assert resolve({"PG_CONNECTION_URI": URL, "TIMESTEP_DB_URL": URL}).database_source == "PG_CONNECTION_URI"
    with pytest.raises(SettingsError, match="TIMESTEP_DB_URL"):
        resolve({"PG_CONNECTION_URI": URL, "TIMESTEP_DB_URL": OTHER})


def test_an_unknown_argument_or_key_is_refused_with_the_nearest(resolve: Resolve, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'pol_size'") as caught:
        resolve(pol_size=3)
    assert "'pool_size'" in caught.value.hint
    write_config(tmp_path, "timestep: {logg_level: INFO}")
    with pytest.raises(SettingsError, match=r"timestep\.logg_level") as caught:
        resolve()
    assert "'log_level'" in caught.value.hint


def test_every_setting_is_described_with_its_source_and_without_its_password(tmp_path: Path) -> None:
    write_config(tmp_path, "name: shop\ntimestep: {log_level: info}")
    described = describe(tmp_path, {"PG_CONNECTION_URI": URL}, pool_size=9)
    shown = {name: (value.value, value.source) for name, value in described.items()}
    assert shown["PG_CONNECTION_URI"] == ("postgresql://ann:***@db.example:5433/shop", "PG_CONNECTION_URI")
    assert shown["TIMESTEP_APP_NAME"] == ("shop", "dbos-config.yaml name")
    assert shown["TIMESTEP_POOL_SIZE"] == ("9", "argument pool_size")
    assert shown["TIMESTEP_LOG_LEVEL"] == ("INFO", "dbos-config.yaml timestep.log_level")
    assert shown["TIMESTEP_RUN_MIGRATIONS"] == ("true", "default")
    assert len(described) == 2 + len(Settings.__dataclass_fields__) - 3
    assert not [value for value in described.values() if value.problem]


def test_a_misspelt_variable_is_described_with_the_right_one(tmp_path: Path) -> None:
    described = describe(tmp_path, {"TIMESTEP_POLL_SIZE": "my secret", "TIMESTEP_WEB_TOKEN": "x"})
    assert described["TIMESTEP_POLL_SIZE"].hint == "Write TIMESTEP_POOL_SIZE."
    assert "secret" not in str(described)
    assert "TIMESTEP_WEB_TOKEN" not in described


def test_the_settings_of_the_process_are_resolved_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMESTEP_PROBE_LOCAL", "0")
    monkeypatch.setenv("TIMESTEP_POOL_SIZE", "7")
    reset_settings()
    try:
        first = current_settings()
        monkeypatch.setenv("TIMESTEP_POOL_SIZE", "8")
        assert (current_settings(), first.pool_size) == (first, 7)
        set_current_settings(resolve_settings(pool_size=9))
        assert current_settings().pool_size == 9
        reset_settings()
        assert current_settings().pool_size == 8
    finally:
        reset_settings()


def test_importing_the_settings_loads_nothing_heavy() -> None:
    program = "import sys, timestep.settings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"psycopg", "sqlalchemy", "yaml", "tomllib", "platformdirs", "dbos", "agents"} & set(loaded)
