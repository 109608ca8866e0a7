"""A Postgres server that runs on this machine already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString
from urllib.parse import quote

from timestep.settings.urls import DATABASE_VARIABLE, DEFAULT_PORT, SOCKET_FOLDERS, URL_EXAMPLE

LOCAL_DATABASE = "timestep"
EMBEDDED = "embedded server"


@dataclass(frozen=True, kw_only=True)
class Database:
    """Which database to use; `url` is None for the embedded server."""

    url: str | None
    source: str
    problem: str | None = None
    hint: str | None = None
    is_reported: bool = False
    """Whether a log line tells of `problem`; otherwise only `describe_settings` does."""


def find_local_database(port: int = DEFAULT_PORT, folders: tuple[str, ...] = SOCKET_FOLDERS) -> Database:
    """Return the database `timestep` of a Postgres server on this machine, else the embedded server.

    A server that answers but cannot be used is named in `problem`; the user's own login rules of libpq hold.
    """
    hosts = ["localhost"] if _tcp_answers(port) else []
    hosts += [folder for folder in folders if _socket_answers(f"{folder}/.s.PGSQL.{port}")]
    if not hosts:
        return Database(url=None, source=EMBEDDED)
    import psycopg

    def ask(host: str, database: str, query: LiteralString) -> tuple[object, ...] | None:
        with psycopg.connect(
            host=host, hostaddr="", port=port, dbname=database, connect_timeout=2, autocommit=True
        ) as connection:
            return connection.execute(query).fetchone()

    for host in hosts:
        try:
            row = ask(host, LOCAL_DATABASE, "select session_user::text")
        except (psycopg.Error, UnicodeError):
            continue
        user = quote(str(row[0]) if row else "", safe="")
        place = f"{user}@{host}:{port}/{LOCAL_DATABASE}"
        if host.startswith("/"):
            place = f"{user}@/{LOCAL_DATABASE}?host={quote(host, safe='')}&port={port}"
        return Database(url=f"postgresql://{place}", source=f"local server on port {port}")
    problem = f"A Postgres server on port {port} of this machine is not used: "
    for host in hosts:
        try:
            row = ask(host, "postgres", f"select 1 from pg_database where datname = '{LOCAL_DATABASE}'")
        except (psycopg.Error, UnicodeError):
            continue
        if row is None:
            problem += f"it has no database {LOCAL_DATABASE!r}."
            hint = f"Run `createdb -h {host} -p {port} {LOCAL_DATABASE}` to use it."
            return Database(url=None, source=EMBEDDED, problem=problem, hint=hint, is_reported=True)
    problem += f"it does not let this user into a database {LOCAL_DATABASE!r}."
    hint = f"Set {DATABASE_VARIABLE}={URL_EXAMPLE} to use it; nothing to do otherwise."
    return Database(url=None, source=EMBEDDED, problem=problem, hint=hint)


def _tcp_answers(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("localhost", port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _socket_answers(path: str) -> bool:
    import socket

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.5)
            probe.connect(path)
    except OSError:
        return False
    return True
