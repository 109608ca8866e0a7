"""`timestep db`: the embedded Postgres server, or the one that is configured."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import click

from timestep.cli.errors import ExitCode
from timestep.cli.output import emit, emit_json, emit_table, json_option, note
from timestep.client.database import (
    DatabaseState,
    embedded_server,
    look_at_database,
    migrate_schemas,
    open_settings_database,
    without_password,
)
from timestep.errors import DatabaseNotReadyError, EmbeddedPostgresError, InvalidInputError
from timestep.settings import Settings, current_settings, mask_url


@click.group()
def command() -> None:
    """Start, stop, migrate and open the database.

    Without a configured database it is an embedded Postgres server, which starts by itself on first use and
    stops after its last user.

    \b
    Example:
      timestep db status
    """


@command.command()
def start() -> None:
    """Start the embedded server and keep it running until `timestep db stop`.

    \b
    Example:
      timestep db start
    """
    settings = current_settings()
    _refuse_configured(settings, "start")
    server = embedded_server(settings)
    server.ensure(pin=True)
    with contextlib.closing(open_settings_database(settings)) as database:
        database.ensure()
    note(f"The embedded Postgres {server.status().version} runs until `timestep db stop`.")


@command.command()
def stop() -> None:
    """Stop the embedded server, whoever uses it.

    Programs that still need it start it again by themselves.

    \b
    Example:
      timestep db stop
    """
    settings = current_settings()
    _refuse_configured(settings, "stop")
    was_running = embedded_server(settings).stop()
    note("The embedded Postgres is stopped." if was_running else "The embedded Postgres was not running.")


@command.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Print which database is used and how it is. Starts nothing.

    \b
    Example:
      timestep db status --json
    """
    state = look_at_database(current_settings())
    if as_json:
        emit_json(state)
    else:
        _emit_state(state)
    if state.state == "unreachable":
        if not as_json:
            raise DatabaseNotReadyError(state.problem, hint=state.hint)
        context.exit(ExitCode.DATABASE_NOT_READY)


@command.command()
def url() -> None:
    """Print the database's url, with its password, and nothing else.

    \b
    Example:
      psql "$(timestep db url)"
    """
    settings = current_settings()
    if settings.database_url is None and embedded_server(settings).status().state == "stopped":
        note("The embedded Postgres is stopped; `timestep db start` keeps it running.")
    emit(open_settings_database(settings).url)


@command.command()
def migrate() -> None:
    """Make or upgrade the tables of DBOS and of Timestep; safe to repeat.

    It is what `dbos migrate` runs for a project with Timestep's dbos-config.yaml.

    \b
    Example:
      timestep db migrate
    """
    settings = current_settings()
    database = open_settings_database(settings)
    try:
        is_changed, revision = migrate_schemas(database)
        shown = database.display_url
    finally:
        database.close()
    note(f"Database: {shown}")
    note("Schema dbos is up to date.")
    note(f"Schema timestep is {'now' if is_changed else 'already'} at revision {revision}.")


@command.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def psql(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Open the database in psql; further arguments are passed on to it.

    \b
    Example:
      timestep db psql -c "select id, status from timestep.runs"
    """
    settings = current_settings()
    database = open_settings_database(settings)
    database.ensure()  # this process holds the embedded server until psql has ended
    connection, password = without_password(database.url)
    environment = dict(os.environ) | ({"PGPASSWORD": password} if password is not None else {})
    program = _find_psql(settings)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C belongs to psql
    try:
        with subprocess.Popen(
            [program, connection, *arguments],
            env=environment,
        ) as process:
            code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        database.close()
    context.exit(code if code >= 0 else 128 - code)


def _refuse_configured(settings: Settings, verb: str) -> None:
    if settings.database_url is not None:
        raise InvalidInputError(
            f"The database is {mask_url(settings.database_url)}, from {settings.database_source}: "
            f"that server is not Timestep's to {verb}.",
            hint=f"{verb.capitalize()} it with its own tools; "
            "without a configured database Timestep uses an embedded server.",
        )


def _emit_state(state: DatabaseState) -> None:
    meaning = {
        "running": "running",
        "starting": "starting, recovering or stopping",
        "stopped": "stopped: starts by itself on first use",
        "missing": "running; its database is made on first use",
        "unreachable": "unreachable",
    }[state.state]
    rows = [
        ("server", f"{state.kind} Postgres {state.version or ''}".strip()),
        ("state", meaning),
        ("url", state.url),
        ("from", state.source),
        ("pid", state.pid),
        ("directory", state.directory),
        ("log", state.log_path),
    ]
    emit_table(["WHAT", "VALUE"], [row for row in rows if row[1]])


def _find_psql(settings: Settings) -> str:
    on_path = shutil.which("psql")
    if settings.database_url is not None and on_path:
        return on_path
    try:
        bundled = embedded_server(settings).binaries_path / "psql"
    except EmbeddedPostgresError:
        bundled = Path("")
    if bundled.is_file():
        return str(bundled)
    if on_path:
        return on_path
    raise InvalidInputError(
        "There is no psql on the PATH.", hint="Install psql; `timestep db url` prints what to give it."
    )
