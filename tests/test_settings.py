"""Settings: where each value comes from, what is refused, and what is never shown."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from timestep import settings as settings_module
from timestep.errors import SettingsError
from timestep.records import QueueLimits, RateLimit, SettingValue
from timestep.settings import (
    Settings,
    current_settings,
    describe_settings,
    mask_url,
    reset_settings,
    resolve_settings,
    same_database,
    set_current_settings,
)
from timestep.settings.local_server import Database

URL = "postgresql://ann:secret@db.example:5433/shop"
OTHER = "postgresql://ann:secret@db.example:5433/other"

Resolve = Callable[..., Settings]


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """Resolve in an empty folder with an environment of the test's own, without asking port 5432."""

    def call(environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
        arguments.setdefault("directory", tmp_path)
        return resolve_settings(environ={"TIMESTEP_PROBE_LOCAL": "0"} | (environ or {}), **arguments)

    return call


def describe(tmp_path: Path, environ: dict[str, str], **arguments: Any) -> dict[str, SettingValue]:
    environ = {"TIMESTEP_PROBE_LOCAL": "0"} | environ
    return {value.name: value for value in describe_settings(environ=environ, directory=tmp_path, **arguments)}


def write_config(folder: Path, text: str) -> None:
    (folder / "dbos-config.yaml").write_text(text)


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


@pytest.mark.parametrize(
    ("written", "name"),
    [("shop", "shop"), ("My.Shop_2", "my-shop_2"), ("ab", "ab-app"), ("...", "app")],
)
def test_the_name_comes_from_pyproject_of_a_folder_above(
    resolve: Resolve, tmp_path: Path, written: str, name: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[project]\nname = '{written}'\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert resolve(directory=inner).name == name


def test_the_name_in_dbos_config_beats_pyproject(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'shop'\n")
    write_config(tmp_path, "name: store")
    assert resolve().name == "store"


def test_a_pyproject_without_a_name_gives_none(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert resolve().name == "timestep"


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


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${MY_URL}", {"MY_URL": URL}, URL),
        ("${MY_URL}", {}, None),
        ("${MY_URL}", {"MY_URL": ""}, None),
        (f"${{MY_URL:-{URL}}}", {}, URL),
        (f"${{MY_URL:-{URL}}}", {"MY_URL": OTHER}, OTHER),
        ("postgresql://${WHO}:${WORD}@h/d", {"WHO": "ann", "WORD": "a#b: c"}, "postgresql://ann:a#b: c@h/d"),
        ("", {}, None),
    ],
)
def test_variables_in_dbos_config_are_expanded_and_empty_means_absent(
    resolve: Resolve, tmp_path: Path, written: str, environ: dict[str, str], expected: str | None
) -> None:
    write_config(tmp_path, f"system_database_url: {written}")
    assert resolve(environ).database_url == expected


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "POSTGRESQL"])
def test_every_spelling_of_the_scheme_becomes_one(resolve: Resolve, scheme: str) -> None:
    assert resolve({"PG_CONNECTION_URI": f" {scheme}://h/d "}).database_url == "postgresql://h/d"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///x.sqlite", "SQLite"),
        ("mysql://h/d", "mysql"),
        ("postgresql+asyncpg://h/d", "asyncpg"),
        ("localhost:5432", "no scheme"),
        ("host=h password=secret", "no scheme"),
        ("postgresql://h", "names no database"),
        ("postgresql://h:secret/d", "port"),
        ("postgresql://h:99999/d", "port"),
        ("postgresql://h:٣/d", "port"),
    ],
)
def test_what_is_no_postgres_database_is_refused_with_an_example(resolve: Resolve, url: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve({"PG_CONNECTION_URI": url})
    assert says in str(caught.value)
    assert "PG_CONNECTION_URI" in str(caught.value)
    assert "secret" not in str(caught.value) + caught.value.hint
    assert "postgresql://user:password@host:5432/database" in caught.value.hint


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TIMESTEP_APP_NAME", "My App"),
        ("TIMESTEP_APP_NAME", "ab"),
        ("TIMESTEP_MAX_RESULT_BYTES", "8MB"),
        ("TIMESTEP_EXECUTOR_THREADS", "0"),
        ("TIMESTEP_TOOL_THREADS", "-1"),
        ("TIMESTEP_POOL_SIZE", "1"),
        ("TIMESTEP_POOL_SIZE", "٣"),
        ("TIMESTEP_RUN_MIGRATIONS", "maybe"),
        ("TIMESTEP_TAKEOVER_SECONDS", "nan"),
        ("TIMESTEP_TAKEOVER_SECONDS", "inf"),
        ("TIMESTEP_TAKEOVER_SECONDS", "five"),
        ("TIMESTEP_LOG_LEVEL", "LOUD"),
        ("TIMESTEP_PROBE_LOCAL", "perhaps"),
        ("TIMESTEP_EXECUTOR_ID", "a\tb"),
        ("TIMESTEP_RATE_LIMITS", "{"),
        ("TIMESTEP_RATE_LIMITS", "[60]"),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": 60}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"requests": 60}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"requests_per_minute": 0}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"requests_per_minute": true}}'),
        ("TIMESTEP_RATE_LIMITS", '{"gpt-4.1": {"tokens_per_minute": 1.5}}'),
        ("TIMESTEP_RATE_LIMITS", '{"a|b": {"tokens_per_minute": 5}}'),
    ],
)
def test_a_malformed_value_is_refused_with_variable_value_and_what_to_write(
    resolve: Resolve, tmp_path: Path, variable: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve({variable: value})
    assert variable in str(caught.value)
    assert repr(value) in str(caught.value)
    assert caught.value.hint.startswith(f"Write {variable} as ")
    refused = [one for one in describe(tmp_path, {variable: value}).values() if one.problem]
    assert [(one.value, one.problem, one.hint) for one in refused] == [("", str(caught.value), caught.value.hint)]


def test_rate_limits_of_a_file_are_shown_and_refused_by_their_key(resolve: Resolve, tmp_path: Path) -> None:
    limits = "gpt-4.1: {requests_per_minute: 500, tokens_per_minute: 30000}, ollama/: {requests_per_minute: 60}"
    write_config(tmp_path, f"timestep: {{rate_limits: {{{limits}}}}}")
    assert describe(tmp_path, {})["TIMESTEP_RATE_LIMITS"].value == (
        "gpt-4.1: 500 requests and 30,000 tokens a minute, ollama/: 60 requests a minute"
    )
    for key, says in (
        ("https://api.openai.com/v1", "hosts, of which 'https://api.openai.com/v1' is none"),
        ("m", "'m'"),
    ):
        write_config(tmp_path, f"timestep: {{rate_limits: {{'{key}': {{requests_per_day: 1}}}}}}")
        with pytest.raises(SettingsError, match=r"timestep\.rate_limits is") as caught:
            resolve()
        assert says in caught.value.hint


def test_queues_come_from_a_file_or_the_environment(resolve: Resolve, tmp_path: Path) -> None:
    write_config(tmp_path, "timestep: {queues: {reports: {global_concurrency: 2, rate_limit: 50}, plain: }}")
    assert resolve().queues == {"reports": QueueLimits(global_concurrency=2, rate_limit=50), "plain": QueueLimits()}
    assert resolve({"TIMESTEP_QUEUES": '{"mails": {}}'}).queues == {"mails": QueueLimits()}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("reports", "a mapping such as"),
        ('["reports"]', "a mapping such as"),
        ('{"reports": 2}', "a mapping such as"),
        ('{"reports": {"concurrency": 2}}', "not 'concurrency' as 'reports' has"),
        ('{"reports": {"global_concurrency": 0}}', "of 'reports': "),
        ('{"_dbos_x": {}}', "of '_dbos_x': "),
    ],
)
def test_what_is_no_queue_is_refused_with_the_form(resolve: Resolve, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match="TIMESTEP_QUEUES") as caught:
        resolve({"TIMESTEP_QUEUES": value})
    assert says in caught.value.hint


def test_a_boolean_is_no_number(resolve: Resolve) -> None:
    with pytest.raises(SettingsError, match="argument pool_size is 'true'"):
        resolve(pool_size=True)
    with pytest.raises(SettingsError, match="argument takeover_seconds"):
        resolve(takeover_seconds=True)


def test_an_unknown_argument_or_key_is_refused_with_the_nearest(resolve: Resolve, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'pol_size'") as caught:
        resolve(pol_size=3)
    assert "'pool_size'" in caught.value.hint
    write_config(tmp_path, "timestep: {logg_level: INFO}")
    with pytest.raises(SettingsError, match=r"timestep\.logg_level") as caught:
        resolve()
    assert "'log_level'" in caught.value.hint


@pytest.mark.parametrize("text", ["- a list", "timestep: [1]", "timestep: text", "a: [", "just words", "\x01"])
def test_a_dbos_config_that_cannot_be_used_is_named(resolve: Resolve, tmp_path: Path, text: str) -> None:
    write_config(tmp_path, text)
    with pytest.raises(SettingsError, match=r"dbos-config\.yaml"):
        resolve()
    described = describe(tmp_path, {"TIMESTEP_POOL_SIZE": "7"})
    assert "dbos-config.yaml" in (described["dbos-config.yaml"].problem or "")
    assert described["TIMESTEP_POOL_SIZE"].value == "7"


def test_a_pyproject_that_cannot_be_used_is_named(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    with pytest.raises(SettingsError, match=r"pyproject\.toml"):
        resolve()


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


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("postgresql://a@h/d", "postgres://a:word@h:5432/d?sslmode=require", True),
        ("postgresql+psycopg://a@h/d", "postgresql://h/d?user=a", True),
        ("postgresql:///d", "postgresql://localhost:5432/d", True),
        ("postgresql://a@127.0.0.1/d", "postgresql://a@LOCALHOST/d", True),
        (
            "postgresql://a@/d?host=%2Fvar%2Frun%2Fpostgresql&port=5433",
            "postgresql://a@localhost:5433/d",
            True,
        ),
        ("postgresql://a@[fe80::1]:6000/d", "postgresql://a@[FE80::1]:6000/d", True),
        ("postgresql://a@h1,h2/d", "postgresql://a@h1:5432,h2:5432/d", True),
        ("postgresql://a@h1,h2/d", "postgresql://a@h2,h1/d", False),
        ("postgresql://a@h/d", "postgresql://a@h/e", False),
        ("postgresql://a@h/d", "postgresql://b@h/d", False),
        ("postgresql://a@h/d", "postgresql://a@h:5433/d", False),
        ("postgresql://a@h/d", "postgresql://a@i/d", False),
        ("postgresql://a@/d?host=/data/socket", "postgresql://a@localhost/d", False),
    ],
)
def test_urls_are_compared_by_where_they_lead(first: str, second: str, is_same: bool) -> None:
    assert same_database(first, second) is is_same
    assert same_database(second, first) is is_same


def test_what_a_url_leaves_out_comes_from_the_variables_of_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGUSER", "ann")
    assert same_database("postgresql:///d", "postgresql://ann@db.example:6000/d")


PATIENT = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a loaded machine
PASSWORDS = st.text(min_size=1, max_size=30).map(lambda text: f"Zq7{text}Zq7")


@PATIENT
@given(
    password=PASSWORDS.filter(lambda text: "://" not in text),
    user=st.from_regex(r"[a-y]{0,8}", fullmatch=True),
    rest=st.sampled_from(["h/d", "h:5432/d?sslmode=require", "/d?host=%2Ftmp", "[::1]/d", "h1,h2:1/d"]),
    scheme=st.sampled_from(["postgresql://", "postgres://", "postgresql+psycopg://", "nonsense://", ""]),
)
@example(password="Zq7@/?:Zq7", user="u", rest="h/d", scheme="postgresql://")
def test_a_password_before_the_host_is_never_shown(password: str, user: str, rest: str, scheme: str) -> None:
    masked = mask_url(f"{scheme}{user}:{password}@{rest}")
    assert "Zq7" not in masked
    assert rest in masked


@PATIENT
@given(password=PASSWORDS.filter(lambda text: "&" not in text), key=st.sampled_from(["password", "sslpassword"]))
@example(password="Zq7a@bZq7", key="password")
def test_a_password_in_the_query_is_never_shown(password: str, key: str) -> None:
    assert "Zq7" not in mask_url(f"postgresql://u@h/d?connect_timeout=3&{key}={password}&sslmode=require")


@PATIENT
@given(password=PASSWORDS.filter(lambda text: "&" not in text))
@example(password="Zq7://Zq7")
def test_a_password_without_a_host_or_in_a_conninfo_is_never_shown(password: str) -> None:
    if "@" not in password:  # what follows it would be the host
        assert "Zq7" not in mask_url(f"postgresql://user:{password}")
    assert "Zq7" not in mask_url(f"host=h user=u password={password} dbname=d")


@pytest.mark.parametrize("url", ["postgresql://h/d", "postgresql://u@h:5432/d?sslmode=require", "postgresql:///d", ""])
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert mask_url(url) == url


def test_importing_the_settings_loads_nothing_heavy() -> None:
    program = "import sys, timestep.settings; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"psycopg", "sqlalchemy", "yaml", "tomllib", "platformdirs", "dbos", "agents"} & set(loaded)
