"""The way to the database: urls, transactions, and a server that goes away."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from timestep.embedded_postgres import EmbeddedPostgres
from timestep.errors import DatabaseNotReadyError, InvalidInputError, SettingsError
from timestep.store.connection import Database, open_database
from timestep.store.migrations import migrate
from timestep.store.sessions import append_items, read_items
from timestep.store.tables import runs

ITEMS = [{"n": 0}]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:secret@db/orders",
        "postgres://ann:secret@db/orders",
        "postgresql+psycopg://ann:secret@db/orders",
    ],
)
def test_every_spelling_of_a_url_is_the_same_database(url: str) -> None:
    database = open_database(url, application="shop")

    assert database.url == "postgresql://ann:secret@db/orders"
    assert database.display_url == "postgresql://ann:***@db/orders"
    assert not database.is_embedded
    assert database.creator is None


def test_a_password_among_the_parameters_is_masked_too() -> None:
    database = open_database("postgresql://db/orders?password=secret&sslmode=require", application="shop")

    assert database.display_url == "postgresql://db/orders?password=***&sslmode=require"


def test_a_url_with_two_hosts_finds_the_one_that_answers(server: EmbeddedPostgres) -> None:
    before, mark, after = server.url("postgres").partition("host=")
    database = open_database(f"{before}{mark}/nowhere,{after}", application="shop")

    database.ensure()
    database.close()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ann:secret@db/orders",
        "postgresql://ann:secret@db:port/x",
        "postgresql://ann:secret@db/x?no=1",
        "",
    ],
)
def test_what_is_no_postgres_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        open_database(url, application="shop")
    assert "secret" not in str(refusal.value)
    assert "postgresql://user:password@host" in refusal.value.hint


def test_a_database_that_is_missing_is_named_with_the_command_that_makes_it(server: EmbeddedPostgres) -> None:
    database = open_database(server.url("absent"), application="shop")

    with pytest.raises(DatabaseNotReadyError, match="absent") as refusal:
        database.ensure()
    assert "createdb absent" in refusal.value.hint
    assert refusal.value.retryable
    database.close()


def test_without_a_url_the_embedded_server_starts_on_first_use(own_server: EmbeddedPostgres) -> None:
    database = open_database(None, application="my-shop", embedded_directory=own_server.directory)
    assert database.is_embedded
    assert not own_server.directory.exists()

    assert migrate(database) is True
    database.run_sync(append_items, "conversation", ITEMS)
    assert database.creator is not None
    with database.creator() as connection:
        assert connection.execute("select current_database()").fetchone() == ("my-shop",)
    connection.close()
    assert "/my-shop?" in database.url
    assert "my-shop" in database.display_url
    database.close()
    database.close()


def test_a_long_application_name_becomes_a_database_name_that_postgres_takes() -> None:
    first = open_database(None, application="a" * 80 + "1")
    second = open_database(None, application="a" * 80 + "2")

    names = [first.name, second.name]
    assert [len(name) for name in names] == [63, 63]
    assert names[0] != names[1]


async def test_a_function_that_fails_leaves_nothing_behind(database: Database) -> None:
    def fail(connection: sa.Connection) -> None:
        append_items(connection, "half", ITEMS)
        raise LookupError

    with pytest.raises(LookupError):
        await database.run(fail)
    assert await database.run(read_items, "half") == []


async def test_work_happens_outside_the_loops_own_threads(database: Database) -> None:
    name = await database.run(lambda connection: threading.current_thread().name)

    assert name.startswith("timestep-store")


async def test_a_cancelled_call_ends_when_its_transaction_has(database: Database) -> None:
    is_inside, may_end = threading.Event(), threading.Event()

    def work(connection: sa.Connection) -> None:
        append_items(connection, "kept", ITEMS)
        is_inside.set()
        may_end.wait()

    task = asyncio.create_task(database.run(work))
    await asyncio.to_thread(is_inside.wait)
    task.cancel()
    await asyncio.sleep(0)
    is_done = task.done()
    may_end.set()

    assert not is_done
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.run(read_items, "kept") == ITEMS


async def test_a_call_after_the_server_went_and_came_back_does_not_notice(
    own_server: EmbeddedPostgres,
) -> None:
    database = own_database(own_server)
    await database.run(append_items, "before", ITEMS)

    own_server.stop()
    own_server.ensure()

    assert await database.run(read_items, "before") == ITEMS
    database.close()


async def test_a_call_while_the_server_is_away_fails(own_server: EmbeddedPostgres) -> None:
    database = own_database(own_server)
    await database.run(append_items, "before", ITEMS)
    own_server.stop()

    with pytest.raises(exc.OperationalError):
        await database.run(read_items, "before")
    database.close()


async def test_run_until_done_waits_for_the_server_and_stores_once(
    own_server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="timestep")
    database = own_database(own_server)
    await database.run(append_items, "conversation", [{"n": 0}])
    own_server.stop()

    work = asyncio.create_task(database.run_until_done(append_items, "conversation", [{"n": 1}]))
    while not caplog.records:
        assert not work.done(), work.exception()
        await asyncio.sleep(0.01)
    own_server.ensure()
    await work

    assert await database.run(read_items, "conversation") == [{"n": 0}, {"n": 1}]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert all(database.display_url in record.getMessage() for record in caplog.records)
    database.close()


async def test_run_until_done_brings_the_embedded_server_back_by_itself(own_server: EmbeddedPostgres) -> None:
    database = open_database(None, application="shop", embedded_directory=own_server.directory)
    migrate(database)
    await database.run(append_items, "before", ITEMS)
    own_server.stop()

    assert await database.run_until_done(read_items, "before") == ITEMS
    database.close()


async def test_run_until_done_repeats_what_lost_a_deadlock(database: Database) -> None:
    for name in ("a", "b"):
        await database.run(append_items, name, ITEMS)
    barrier = threading.Barrier(2)
    attempts: list[str] = []

    def lock_both(connection: sa.Connection, first: str, second: str) -> None:
        attempts.append(first)
        lock(connection, first)
        if len(attempts) <= 2:
            barrier.wait()
        lock(connection, second)

    await asyncio.gather(database.run_until_done(lock_both, "a", "b"), database.run_until_done(lock_both, "b", "a"))
    assert len(attempts) == 3


@pytest.mark.parametrize("error", [LookupError(), InvalidInputError("no")])
async def test_run_until_done_raises_what_trying_again_cannot_help(database: Database, error: Exception) -> None:
    def fail(connection: sa.Connection) -> None:
        raise error

    with pytest.raises(type(error)):
        await database.run_until_done(fail)
    with pytest.raises(exc.ProgrammingError):
        await database.run_until_done(lambda connection: connection.exec_driver_sql("select no_such_column"))


def test_errors_do_not_show_what_was_stored(database: Database) -> None:
    def fail(connection: sa.Connection) -> None:
        connection.execute(sa.insert(runs).values(id="secret payload"))

    with pytest.raises(exc.IntegrityError) as failure:
        database.run_sync(fail)
    assert "secret payload" not in str(failure.value).split("DETAIL")[0]


def own_database(server: EmbeddedPostgres) -> Database:
    server.ensure_database("shop")
    database = open_database(server.url("shop"), application="shop")
    migrate(database)
    return database


def lock(connection: sa.Connection, session_id: str) -> None:
    statement = sa.text("select id from timestep.sessions where id = :id for update")
    connection.execute(statement, {"id": session_id})
