"""`timestep doctor`: every setting, and whether all is ready."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from timestep.cli.errors import ExitCode
from timestep.cli.output import coloured, emit, emit_json, json_option
from timestep.errors import TimestepError
from timestep.records import SettingValue
from timestep.settings import (
    DATABASE_VARIABLE,
    Settings,
    current_model_providers,
    describe_settings,
    resolve_settings,
)

if TYPE_CHECKING:
    from timestep.client.connector import Connector
    from timestep.client.database import SchemaState

Status = Literal["ok", "warn", "fail"]
ANSWERS = "answers"
OLDEST_PYTHON = (3, 11)
MOST_STRANDED = 3
"""Stranded runs that are named."""

SUPPORTED: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {
    "dbos": ((3, 4), (3, 5)),
    "openai-agents": ((0, 24), (0, 25)),
    "ollama": ((0, 6, 0), None),
}
"""Oldest version that is supported and the first that is not, as `pyproject.toml` has them."""

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    detail: str
    hint: str | None = None
    is_about_database: bool = False


@click.command()
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Print every setting with its source, and check versions, database, executors and models.

    Starts and changes nothing. Each line begins with ok, warn or fail; the exit code is 6 when the database
    is not ready and 1 when something else failed.

    \b
    Example:
      timestep doctor
    """
    described = describe_settings()
    settings = [_check_setting(value) for value in described]
    checks = [*_check_versions(), *_check_database(), *_check_models()]
    failed = [check for check in (*settings, *checks) if check.status == "fail"]
    if as_json:
        emit_json(
            {
                "status": "fail" if failed else "ok",
                "settings": [
                    {"status": check.status, **_fields(value)} for check, value in zip(settings, described, strict=True)
                ],
                "checks": [
                    {"name": check.name, "status": check.status, "detail": check.detail, "hint": check.hint}
                    for check in checks
                ],
            }
        )
    else:
        _emit_checks("settings", settings)
        emit()
        _emit_checks("checks", checks)
    if failed:
        is_database = any(check.is_about_database for check in failed)
        context.exit(ExitCode.DATABASE_NOT_READY if is_database else ExitCode.FAILED)


def _fields(value: SettingValue) -> dict[str, str | None]:
    return {
        "name": value.name,
        "value": value.value,
        "source": value.source,
        "problem": value.problem,
        "hint": value.hint,
    }


def _emit_checks(title: str, checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    emit(f"{title}")
    for check in checks:
        word = coloured(f"{check.status:<4}", _COLOURS[check.status])
        emit(f"  {word}  {check.name:<{width}}  {check.detail}".rstrip())
        if check.hint and check.status != "ok":
            emit(f"        {'':<{width}}  hint: {check.hint}")


def _check_setting(value: SettingValue) -> Check:
    shown = value.value or "not set"
    if value.source != "default":
        shown += f"  ({value.source})"
    if value.problem is None:
        return Check(name=value.name, status="ok", detail=shown)
    # A setting that is refused has no value; one that holds all the same has.
    is_refused = not value.value
    return Check(
        name=value.name,
        status="fail" if is_refused else "warn",
        detail=value.problem if is_refused else f"{shown}. {value.problem}",
        hint=value.hint,
        is_about_database=value.name == DATABASE_VARIABLE,
    )


def _check_versions() -> Iterator[Check]:
    from importlib import metadata

    version = platform.python_version()
    is_new_enough = sys.version_info[:2] >= OLDEST_PYTHON
    hint = f"Use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer."
    yield Check(name="python", status="ok" if is_new_enough else "fail", detail=version, hint=hint)
    for name, (oldest, first_newer) in SUPPORTED.items():
        wanted = f"{name}>={_dotted(oldest)}" + (f",<{_dotted(first_newer)}" if first_newer else "")
        hint = f"Run `pip install '{wanted}'`."
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name=name, status="fail", detail="not installed", hint=hint)
            continue
        numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
        if numbers < oldest or (first_newer is not None and numbers >= first_newer):
            yield Check(name=name, status="fail", detail=f"{version} is not supported ({wanted})", hint=hint)
        else:
            yield Check(name=name, status="ok", detail=version)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _check_database() -> Iterator[Check]:
    from timestep.client.database import look_at_database

    try:
        settings = resolve_settings()
    except TimestepError:
        yield Check(name="database", status="warn", detail="not looked at until the settings are right")
        return
    state = look_at_database(settings)
    name = "embedded server" if state.kind == "embedded" else "database"
    if state.problem is not None:
        yield Check(name=name, status="fail", detail=state.problem, hint=state.hint, is_about_database=True)
        return
    if state.state in ("stopped", "starting", "missing"):
        meaning = {
            "stopped": "stopped: starts by itself on first use",
            "starting": "starting, recovering or stopping",
            "missing": f"running, Postgres {state.version}; its database is made on first use",
        }
        yield Check(name=name, status="ok", detail=f"{meaning[state.state]} ({state.directory})")
        return
    where = state.directory or state.url
    yield Check(name=name, status="ok", detail=f"running, Postgres {state.version} ({where})")
    yield from _check_schemas(settings)


def _check_schemas(settings: Settings) -> Iterator[Check]:
    from timestep.client.connector import Connector
    from timestep.client.database import dbos_revision, explaining_refusals, look_at_schema, open_without_starting
    from timestep.client.executors import list_live_executors

    database = open_without_starting(settings)
    connector = Connector(database, application=settings.name)
    try:
        with explaining_refusals():
            schema = look_at_schema(database)
            yield _check_timestep_schema(schema, settings)
            version = dbos_revision(database)
            yield _check_schema("schema dbos", None if version is None else str(version), settings)
            if schema.revision is not None:
                executors = list_live_executors(connector) if schema.is_current else []
                yield _check_executors([f"{each.executor_id} on {each.host}" for each in executors])
            if schema.is_current and version is not None:
                yield _check_stranded(connector)
    except TimestepError as error:
        yield Check(name="schemas", status="fail", detail=str(error), hint=error.hint, is_about_database=True)
    finally:
        connector.close()
        database.close()


def _check_timestep_schema(schema: SchemaState, settings: Settings) -> Check:
    name = "schema timestep"
    if schema.problem is None:
        return _check_schema(name, schema.revision, settings)
    status: Status = "warn" if settings.run_migrations and schema.is_older else "fail"
    return Check(name=name, status=status, detail=schema.problem, hint=schema.hint, is_about_database=True)


def _check_schema(name: str, revision: str | None, settings: Settings) -> Check:
    if revision is not None:
        return Check(name=name, status="ok", detail=f"revision {revision}")
    if settings.run_migrations:
        return Check(name=name, status="ok", detail="not there yet: made on first use, or by `timestep db migrate`")
    return Check(
        name=name,
        status="fail",
        detail="not there, and TIMESTEP_RUN_MIGRATIONS is off",
        hint="Run `timestep db migrate` as a user who may create schemas.",
        is_about_database=True,
    )


def _check_executors(names: list[str]) -> Check:
    if not names:
        hint = "`timestep worker MODULE` starts one."
        return Check(name="executors", status="ok", detail="none; queued runs wait for one", hint=hint)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return Check(name="executors", status="ok", detail=f"{len(names)}: {shown}")


def _check_stranded(connector: Connector) -> Check:
    from timestep.cli.quiet import quieten
    from timestep.client.executors import list_stranded_runs

    quieten()
    found = list_stranded_runs(connector, limit=MOST_STRANDED + 1)
    if not found:
        return Check(name="stranded runs", status="ok", detail="none")
    shown = "; ".join(f"{run.run_id}: {run.detail}" for run in found[:MOST_STRANDED])
    more = "; ..." if len(found) > MOST_STRANDED else ""
    hint = f"{found[0].hint} All of them: `timestep runs list --stranded`."
    return Check(name="stranded runs", status="warn", detail=f"{shown}{more}", hint=hint)


def _check_models() -> Iterator[Check]:
    has_key = bool(os.environ.get("OPENAI_API_KEY"))
    yield Check(name="OPENAI_API_KEY", status="ok", detail="set" if has_key else "not set")
    has_ollama = bool(os.environ.get("OLLAMA_API_KEY"))
    if has_ollama:
        yield Check(name="ollama server", status="ok", detail="the cloud, by OLLAMA_API_KEY")
    else:
        check = _check_local_ollama()
        has_ollama = check.detail.startswith(ANSWERS)
        yield check
    if not has_key and not has_ollama and not _has_servers():
        yield Check(
            name="models",
            status="warn",
            detail="no key and no Ollama: only `timestep demo` and agents with models of their own work",
            hint="Set OPENAI_API_KEY, or start Ollama.",
        )


def _has_servers() -> bool:
    try:
        return bool(current_model_providers())
    except TimestepError:
        return False  # told of beside the setting


def _check_local_ollama() -> Check:
    import socket
    from urllib.parse import urlsplit

    from timestep.models.ollama_host import local_url

    name = "ollama server"
    try:
        url, reason = local_url()
    except TimestepError as error:
        return Check(name=name, status="warn", detail=str(error), hint=error.hint)
    place = urlsplit(url)
    try:
        socket.create_connection((place.hostname or "", place.port or 0), timeout=0.5).close()
        detail = ANSWERS
    except OSError:
        detail = "none"
    shown = f"on port {place.port}" if reason == "default" else f"at {url}, by {reason}"
    return Check(name=name, status="ok", detail=f"{detail} {shown}")
