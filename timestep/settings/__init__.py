"""Settings: one frozen object, resolved once per process.

Each setting is looked up in this order: argument, environment variable, `dbos-config.yaml`, default. An
empty variable counts as absent. In `dbos-config.yaml`, `name` and `system_database_url` are DBOS's own keys;
every other setting is a key of the mapping `timestep`; `${VAR}` and `${VAR:-default}` stand for environment
variables.

The database is the first of: argument, `PG_CONNECTION_URI`, `TIMESTEP_DB_URL` (its older name), the
connection of a DBOS that is configured already, `DBOS_SYSTEM_DATABASE_URL`, `system_database_url` in
`dbos-config.yaml`, a Postgres server on port 5432 of this machine that lets the user into a database named
`timestep`, and the embedded server.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timestep.errors import SettingsError
from timestep.records import ModelServer, OnExpiry, QueueLimits, RateLimit, SettingValue
from timestep.settings import values
from timestep.settings.local_server import EMBEDDED, Database, find_local_database
from timestep.settings.project import (
    CONFIG_FILE,
    CONFIG_SECTION,
    PROJECT_FILE,
    current_folder,
    find_project,
    load_config,
    load_project_name,
)
from timestep.settings.urls import (
    DATABASE_VARIABLE,
    MASK,
    URL_EXAMPLE,
    canonical_url,
    mask_url,
    same_database,
)

__all__ = [
    "DATABASE_VARIABLE",
    "DEFAULT_NAME",
    "Settings",
    "canonical_url",
    "current_model_providers",
    "current_settings",
    "describe_settings",
    "mask_url",
    "reset_settings",
    "resolve_settings",
    "same_database",
    "set_current_settings",
]

DEFAULT_NAME = "timestep"
MEBIBYTE = 1024 * 1024

_OLD_DATABASE_VARIABLE = "TIMESTEP_DB_URL"
_DBOS_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
_PROBE_VARIABLE = "TIMESTEP_PROBE_LOCAL"

_logger = logging.getLogger("timestep")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process of Timestep runs with. `database_url` is None for the embedded server."""

    name: str
    database_url: str | None
    database_source: str
    data_directory: Path
    application_version: str | None = None
    executor_id: str | None = None
    max_result_bytes: int = 8 * MEBIBYTE
    max_turns_per_segment: int = 50
    approval_expires_seconds: float | None = None
    approval_on_expiry: OnExpiry = "reject"
    executor_threads: int = 8
    tool_threads: int = 32
    pool_size: int = 20
    run_migrations: bool = True
    takeover_seconds: float = 5.0
    log_level: str = "WARNING"
    model_providers: Mapping[str, ModelServer] = field(default_factory=dict)
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict)
    queues: Mapping[str, QueueLimits] = field(default_factory=dict)


def resolve_settings(
    *,
    environ: Mapping[str, str] | None = None,
    directory: str | Path | None = None,
    dbos_url: str | None = None,
    **arguments: Any,
) -> Settings:
    """Return the settings that hold for these sources.

    Reads `dbos-config.yaml` or `pyproject.toml` of the nearest folder from `directory` (default: the current
    one) upwards that has one, and asks port 5432 of this machine when no database is named. `dbos_url` is the
    connection of a DBOS that is configured already. `arguments` are fields of `Settings`; None counts as
    absent; `database_source` says where the argument `database_url` came from.

    Raises:
        SettingsError: a value is unknown or malformed, or two sources name different databases.
    """
    sources = _open_sources(environ, directory, dbos_url, arguments)
    if sources.problems:
        raise sources.problems[0][1]
    found = {setting.field: sources.read(setting)[0] for setting in _SETTINGS}
    database = sources.find_database()
    if database.is_reported:
        _report_once(f"{database.problem} {database.hint}")
    return Settings(database_url=database.url, database_source=database.source, **found)


def describe_settings(
    *,
    environ: Mapping[str, str] | None = None,
    directory: str | Path | None = None,
    dbos_url: str | None = None,
    **arguments: Any,
) -> list[SettingValue]:
    """Return every setting with its value and source, and with what is wrong and what to write; never raises.

    `name` is the environment variable of the setting. A refused setting has a problem and no value; one
    that holds in spite of its problem has both. Passwords are masked.
    """
    sources = _open_sources(environ, directory, dbos_url, arguments)
    described = [_described_database(sources)]
    for setting in _SETTINGS:
        _, source = sources.find(setting)
        try:
            value, _ = sources.read(setting)
        except SettingsError as error:
            described.append(_problem(setting.variable, source, error))
        else:
            described.append(SettingValue(name=setting.variable, value=values.shown(value), source=source))
    described += [_problem(name, "", error) for name, error in sources.problems]
    described += _misspelt(sources.environ)
    return described


_lock = threading.Lock()
_current: Settings | None = None
_reported: set[str] = set()


def current_settings() -> Settings:
    """Return the settings of this process; the first call resolves them."""
    global _current
    with _lock:
        if _current is None:
            _current = resolve_settings()
        return _current


def current_model_providers() -> Mapping[str, ModelServer]:
    """Return the servers of models that are configured, without a look at any other setting.

    Raises:
        SettingsError: the setting is malformed, or `dbos-config.yaml` cannot be read.
    """
    if _current is not None:
        return _current.model_providers
    sources = _open_sources(None, None, None, {})
    if (problem := dict(sources.problems).get(CONFIG_FILE)) is not None:
        raise problem
    return sources.read(next(setting for setting in _SETTINGS if setting.field == "model_providers"))[0]


def set_current_settings(settings: Settings) -> None:
    """Make `settings` those of this process."""
    global _current
    with _lock:
        _current = settings


def reset_settings() -> None:
    """Forget the settings of this process; the next use resolves them again."""
    global _current
    with _lock:
        _current = None


@dataclass(frozen=True, kw_only=True)
class _Setting:
    field: str
    variable: str
    default: Any
    convert: Callable[[Any], Any]


@dataclass(kw_only=True)
class _Sources:
    environ: Mapping[str, str]
    folder: Path
    project: Path
    config: Mapping[str, Any]
    project_name: str | None
    dbos_url: str | None
    arguments: Mapping[str, Any]
    problems: list[tuple[str, SettingsError]]

    def find(self, setting: _Setting) -> tuple[Any, str]:
        """Return the value as written and its source."""
        if self.arguments.get(setting.field) is not None:
            return self.arguments[setting.field], f"argument {setting.field}"
        if self.environ.get(setting.variable, "").strip():
            return self.environ[setting.variable].strip(), setting.variable
        if setting.field == "name":
            if self.config.get("name") not in (None, ""):
                return self.config["name"], f"{CONFIG_FILE} name"
            if self.project_name:
                return self.project_name, f"{PROJECT_FILE} [project].name"
        section = self.config.get(CONFIG_SECTION) or {}
        if section.get(setting.field) not in (None, ""):
            return section[setting.field], f"{CONFIG_FILE} {CONFIG_SECTION}.{setting.field}"
        return setting.default() if callable(setting.default) else setting.default, "default"

    def read(self, setting: _Setting) -> tuple[Any, str]:
        """Return the value and its source, or raise SettingsError."""
        raw, source = self.find(setting)
        if source == "default":
            return raw, source
        try:
            value = setting.convert(raw)
        except ValueError as error:
            said = "malformed" if setting.field == "model_providers" else repr(values.shown(raw))  # a key may be in it
            raise SettingsError(f"{source} is {said}.", hint=f"Write {source} as {error}.") from None
        if isinstance(value, Path):
            value = (self.project if source.startswith(CONFIG_FILE) else self.folder) / value
        return value, source

    def find_database(self) -> Database:
        """Return the database of this process, or raise SettingsError."""
        named = [(canonical_url(url, source=source), source) for url, source in self._named()]
        for url, source in named[1:]:
            first, first_source = named[0]
            if not same_database(first, url):
                raise SettingsError(
                    f"{first_source} names {mask_url(first)}, but {source} names {mask_url(url)}: "
                    "one process uses one database.",
                    hint=f"Remove {first_source} or {source}, or write the same host, port, database and user in both.",
                )
        if named:
            return Database(url=named[0][0], source=named[0][1])
        probe = self.environ.get(_PROBE_VARIABLE, "").strip() or "1"
        try:
            is_probed = values.yes_or_no(probe)
        except ValueError as error:
            hint = f"Write {_PROBE_VARIABLE} as {error}."
            raise SettingsError(f"{_PROBE_VARIABLE} is {probe!r}.", hint=hint) from None
        return find_local_database() if is_probed else Database(url=None, source=EMBEDDED)

    def _named(self) -> Iterator[tuple[str, str]]:
        source = self.arguments.get("database_source") or "argument database_url"
        found = [(self.arguments.get("database_url"), str(source))]
        found += [(self.environ.get(name), name) for name in (DATABASE_VARIABLE, _OLD_DATABASE_VARIABLE)]
        found += [(self.dbos_url, "the DBOS configured in this process")]
        found += [(self.environ.get(_DBOS_VARIABLE), _DBOS_VARIABLE)]
        found += [(self.config.get("system_database_url"), f"{CONFIG_FILE} system_database_url")]
        for url, name in found:
            if url is not None and not isinstance(url, str):
                raise SettingsError(f"{name} is {values.shown(url)!r}.", hint=f"Write {name} as {URL_EXAMPLE}.")
            if url and url.strip():
                yield url.strip(), name


def _open_sources(
    environ: Mapping[str, str] | None,
    directory: str | Path | None,
    dbos_url: str | None,
    arguments: Mapping[str, Any],
) -> _Sources:
    environ = os.environ if environ is None else environ
    folder = Path(os.path.abspath(directory if directory is not None else current_folder()))
    problems: list[tuple[str, SettingsError]] = []
    config: dict[str, Any] = {}
    project_name = None
    project = find_project(folder)
    try:
        config = load_config(project / CONFIG_FILE, environ)
    except SettingsError as error:
        problems.append((CONFIG_FILE, error))
    try:
        project_name = load_project_name(project / PROJECT_FILE)
    except SettingsError as error:
        problems.append((PROJECT_FILE, error))
    fields = [setting.field for setting in _SETTINGS]
    for name in arguments.keys() - {*fields, "database_url", "database_source"}:
        hint = _nearest(name, [*fields, "database_url"], "Settings are")
        problems.append((name, SettingsError(f"There is no setting {name!r}.", hint=hint)))
    for name in (config.get(CONFIG_SECTION) or {}).keys() - set(fields[1:]):
        where = f"{CONFIG_FILE} {CONFIG_SECTION}.{name}"
        hint = _nearest(str(name), fields[1:], "Keys there are")
        problems.append((where, SettingsError(f"{where} is not a setting.", hint=hint)))
    return _Sources(
        environ=environ,
        folder=folder,
        project=project,
        config=config,
        project_name=project_name,
        dbos_url=dbos_url,
        arguments=arguments,
        problems=problems,
    )


def _report_once(notice: str) -> None:
    if notice not in _reported:
        _reported.add(notice)
        _logger.warning(notice)


def _described_database(sources: _Sources) -> SettingValue:
    try:
        database = sources.find_database()
    except SettingsError as error:
        return _problem(DATABASE_VARIABLE, "", error)
    value = mask_url(database.url) if database.url else EMBEDDED
    source = database.source if database.url else "default"
    return SettingValue(
        name=DATABASE_VARIABLE, value=value, source=source, problem=database.problem, hint=database.hint
    )


def _problem(name: str, source: str, error: SettingsError) -> SettingValue:
    return SettingValue(name=name, value="", source=source, problem=str(error), hint=error.hint)


def _misspelt(environ: Mapping[str, str]) -> list[SettingValue]:
    import difflib

    known = [setting.variable for setting in _SETTINGS] + [_OLD_DATABASE_VARIABLE, _PROBE_VARIABLE]
    found: list[SettingValue] = []
    for name in sorted(environ):
        near = difflib.get_close_matches(name, known, 1, 0.85)
        if near and name.startswith("TIMESTEP_") and name not in known:
            problem = f"{name} is not a setting and has no effect."
            hint = f"Write {near[0]}."
            found.append(SettingValue(name=name, value=MASK, source=name, problem=problem, hint=hint))
    return found


def _nearest(name: str, known: list[str], otherwise: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else f"{otherwise}: {', '.join(known)}."


def _default_data_directory() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("timestep", appauthor=False))


def _setting(field: str, convert: Callable[[Any], Any], default: Any, variable: str | None = None) -> _Setting:
    variable = variable or f"TIMESTEP_{field.upper()}"
    return _Setting(field=field, variable=variable, default=default, convert=convert)


_SETTINGS = (
    _setting("name", values.name, DEFAULT_NAME, "TIMESTEP_APP_NAME"),
    _setting("data_directory", values.folder, _default_data_directory, "TIMESTEP_DATA_DIR"),
    _setting("application_version", values.identifier, None),
    _setting("executor_id", values.identifier, None),
    _setting("max_result_bytes", values.whole(1024, 512 * MEBIBYTE), 8 * MEBIBYTE),
    _setting("max_turns_per_segment", values.whole(1, 10_000), 50),
    _setting("approval_expires_seconds", values.long_seconds, None),
    _setting("approval_on_expiry", values.one_of("reject", "fail"), "reject"),
    _setting("executor_threads", values.whole(1, 1000), 8),
    _setting("tool_threads", values.whole(1, 10_000), 32),
    _setting("pool_size", values.whole(2, 1000), 20),
    _setting("run_migrations", values.yes_or_no, True),
    _setting("takeover_seconds", values.seconds, 5.0),
    _setting("log_level", values.log_level, "WARNING"),
    _setting("model_providers", values.model_providers, dict),
    _setting("rate_limits", values.rate_limits, dict),
    _setting("queues", values.queues, dict),
)
