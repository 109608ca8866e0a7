"""Urls of databases: their spellings, what they mean, and what is never shown of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from timestep.errors import SettingsError
from timestep.settings import (
    Settings,
    mask_url,
    same_database,
)

URL = "postgresql://ann:secret@db.example:5433/shop"
OTHER = "postgresql://ann:secret@db.example:5433/other"

Resolve = Callable[..., Settings]


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
