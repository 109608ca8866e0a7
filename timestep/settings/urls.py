"""URLs of Postgres databases: checked, compared, and shown without their passwords."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from timestep.errors import SettingsError

DATABASE_VARIABLE = "PG_CONNECTION_URI"
DEFAULT_PORT = 5432
SOCKET_FOLDERS = ("/var/run/postgresql", "/run/postgresql", "/tmp")
MASK = "***"
URL_EXAMPLE = "postgresql://user:password@host:5432/database"

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


def mask_url(url: str) -> str:
    """Return `url` without its passwords; where a password ends is in doubt, more is masked, never less."""
    start = re.match(r"[\w+.-]*://", url)
    scheme, mark, rest = url.partition("://") if start else ("", "", url)
    before, at, after = rest.rpartition("@")
    user, colon, _ = (before if at else rest).partition(":")
    masked = rest
    if at and colon:
        masked = f"{user}:{MASK}@{after}"
    elif colon and mark and not _looks_like_hosts(re.split(r"[/?]", rest, maxsplit=1)[0]):
        masked = f"{user}:{MASK}"
    masked = re.sub(r"(?i)(pass\w*\s*=\s*)('(?:[^'\\]|\\.)*'?|[^&]*)", rf"\1{MASK}", masked)
    return f"{scheme}{mark}{masked}"


def canonical_url(url: str, *, source: str) -> str:
    """Return `url` with the scheme `postgresql://`, or refuse it.

    Raises:
        SettingsError: it is not the URL of a Postgres database.
    """
    scheme, mark, rest = url.strip().partition("://")
    hint = f"Write {source} as {URL_EXAMPLE}; special characters in the password as %40 and the like."
    if not mark or scheme.lower() not in _SCHEMES:
        kind = f"the scheme {scheme!r}" if mark else "no scheme"
        if scheme.lower().startswith("sqlite"):
            kind, hint = "SQLite", f"{hint} Without any database setting an embedded Postgres server is used."
        raise SettingsError(f"{source} is {mask_url(url)!r}: {kind}, not a Postgres database.", hint=hint)
    canonical = f"postgresql://{rest}"
    parts = _parts_of(canonical)
    if not all(re.fullmatch("[0-9]{0,5}", port) and int(port or 1) in range(1, 65536) for port in parts.ports):
        raise SettingsError(f"{source} is {mask_url(url)!r}: a port is not a number up to 65535.", hint=hint)
    if not parts.database:
        raise SettingsError(f"{source} is {mask_url(url)!r}: it names no database.", hint=hint)
    return canonical


def same_database(first: str, second: str) -> bool:
    """Return whether two URLs name one database on one server, as one user, with the defaults of libpq."""
    return _identity_of(first) == _identity_of(second)


@dataclass(frozen=True, kw_only=True)
class _UrlParts:
    hosts: tuple[str, ...]
    ports: tuple[str, ...]
    user: str
    database: str


def _parts_of(url: str) -> _UrlParts:
    rest = url.partition("://")[2]
    address, _, query_text = rest.partition("?")
    location, _, path = address.partition("/")
    userinfo, _, hostports = location.rpartition("@")
    query = {key: values[-1] for key, values in parse_qs(query_text).items()}
    hosts: list[str] = []
    ports: list[str] = []
    for hostport in hostports.split(",") if hostports else []:
        matched = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", hostport)
        hosts.append(unquote(matched[1] if matched else hostport).strip("[]"))
        ports.append((matched[2] or "") if matched else "?")
    if "host" in query:
        hosts = query["host"].split(",")
    if "port" in query:
        ports = query["port"].split(",")
    return _UrlParts(
        hosts=tuple(hosts),
        ports=tuple(ports),
        user=query.get("user") or unquote(userinfo.partition(":")[0]),
        database=query.get("dbname") or unquote(path),
    )


def _identity_of(url: str) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    parts = _parts_of(url)
    local = {"localhost", "127.0.0.1", "::1", *SOCKET_FOLDERS}
    given = [host or os.environ.get("PGHOST") or "localhost" for host in parts.hosts or ("",)]
    hosts = tuple("localhost" if host.lower() in local else host.lower() for host in given)
    ports = tuple(port or os.environ.get("PGPORT") or str(DEFAULT_PORT) for port in parts.ports or ("",))
    user = parts.user or os.environ.get("PGUSER") or _system_user()
    return hosts, ports * len(hosts) if len(ports) == 1 else ports, user, parts.database


def _looks_like_hosts(location: str) -> bool:
    return all(re.fullmatch(r"(\[[0-9a-fA-F:.]*\]|[^:]*)(:[0-9]*)?", part) for part in location.split(","))


def _system_user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
