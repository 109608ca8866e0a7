"""The rows of rate limits: what they let through, whoever comes. Time passes by moving the rows."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from stored_runs import start_run

from timestep.records import RateLimit
from timestep.store.connection import Database
from timestep.store.due import find_due
from timestep.store.rate_limits import Share, Verdict, pause, seconds_of_tokens, settle_tokens, take
from timestep.store.runs import get_stored_run

SLOW = {"request_seconds": 3600.0, "request_lead_seconds": 9 * 3600.0}
"""Ten at once, then one an hour."""


def pass_seconds(database: Database, seconds: float) -> None:
    """Let time pass, for the rows."""

    def move(connection: sa.Connection) -> None:
        for name in ("requests_free_at", "tokens_free_at", "paused_until"):
            query = f"update timestep.rate_limits set {name} = {name} - make_interval(secs => :seconds)"
            connection.execute(sa.text(query), {"seconds": seconds})

    database.run_sync(move)


def ask(database: Database, *shares: Share, **options: Any) -> Verdict:
    return database.run_sync(take, shares, run_id="run", **options)


def rows(database: Database) -> dict[str, Any]:
    def read(connection: sa.Connection) -> dict[str, Any]:
        found = connection.execute(sa.text("select key, requests_free_at, tokens_free_at from timestep.rate_limits"))
        return {row[0]: tuple(row[1:]) for row in found}

    return database.run_sync(read)


@pytest.mark.parametrize("per_minute", [1, 7, 10, 60, 500])
def test_no_sixty_seconds_hold_more_requests_than_the_limit(database: Database, per_minute: int) -> None:
    limit = RateLimit(requests_per_minute=per_minute)
    began, passed, stamps = time.monotonic(), 0.0, list[float]()
    while len(stamps) < 2 * per_minute + 20:
        verdict = ask(database, Share.of("m", limit))
        if verdict.is_taken:
            stamps.append(passed + time.monotonic() - began)
        else:
            pass_seconds(database, verdict.seconds)
            passed += verdict.seconds

    windows = [sum(1 for stamp in stamps if start <= stamp < start + 59.9) for start in stamps]
    assert max(windows) <= per_minute
    assert max(windows) >= 0.85 * per_minute  # it is used, too
    assert stamps[max(1, per_minute // 10) - 1] < 5  # a tenth at once


def test_tokens_are_taken_before_the_call_and_settled_after_it(database: Database) -> None:
    limit = RateLimit(tokens_per_minute=9000)

    def small(tokens: int = 100) -> Verdict:
        return ask(database, Share.of("m", limit, tokens=tokens))

    assert small(900).is_taken
    refused = small(900)
    assert not refused.is_taken
    assert refused.seconds == pytest.approx(900 / 8100 * 60, abs=0.5)
    database.run_sync(settle_tokens, {"m": seconds_of_tokens(limit, 100 - 900)})  # the call took 100
    assert small(800).is_taken
    database.run_sync(settle_tokens, {"m": seconds_of_tokens(limit, 8100)})  # this one took 8100 more
    assert 54 < small(100).seconds < 61


def test_more_tokens_than_a_tenth_wait_until_nothing_is_owed_and_are_made_up_for(database: Database) -> None:
    limit = RateLimit(tokens_per_minute=9000)
    assert ask(database, Share.of("m", limit, tokens=5000)).is_taken
    waits = ask(database, Share.of("m", limit, tokens=5000)).seconds
    assert waits == pytest.approx(5000 / 8100 * 60, abs=0.5)
    pass_seconds(database, waits)
    assert ask(database, Share.of("m", limit, tokens=5000)).is_taken


def test_of_several_limits_all_are_taken_or_none(database: Database) -> None:
    wide, narrow = Share(key="wide", **SLOW), Share(key="narrow", request_seconds=60.0, request_lead_seconds=0.0)
    assert ask(database, wide, narrow).is_taken
    before = rows(database)
    refused = ask(database, wide, narrow)
    assert (refused.is_taken, refused.key) == (False, "narrow")
    assert 59 < refused.seconds <= 60
    assert rows(database) == before
    assert ask(database, wide).is_taken
    assert ask(database, wide, Share(key="third", **SLOW)).is_taken  # a row is made for a limit that is new


def test_who_stands_behind_others_takes_nothing(database: Database) -> None:
    share = Share(key="m", **SLOW)
    assert not ask(database, share, may_take=False).is_taken
    assert [ask(database, share).is_taken for _ in range(12)] == [True] * 10 + [False] * 2


def test_many_callers_at_once_take_what_there_is_and_no_more(database: Database) -> None:
    shares = [Share(key=key, **SLOW) for key in ("a", "b", "c")]

    def caller(number: int) -> int:
        mine = shares if number % 2 else list(reversed(shares))
        return sum(ask(database, *mine).is_taken for _ in range(10))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(caller, range(8))) == 10


def test_a_pause_holds_all_and_the_longest_stays(database: Database) -> None:
    share = Share(key="m")
    database.run_sync(pause, "m", seconds=100)
    database.run_sync(pause, "m", seconds=5)
    database.run_sync(pause, "over", seconds=-1)
    assert 99 < ask(database, share).seconds <= 100
    assert list(database.run_sync(find_due).pauses) == ["m"]
    pass_seconds(database, 100)
    assert ask(database, share).is_taken
    assert database.run_sync(find_due).pauses == {}


def test_the_row_of_a_run_says_what_it_waits_for(database: Database) -> None:
    def run() -> Any:
        return database.run_sync(get_stored_run, "run").run

    def set_status(connection: sa.Connection, status: str) -> None:
        connection.execute(sa.text("update timestep.runs set status = :status"), {"status": status})

    start_run(database, "run")
    database.run_sync(set_status, "queued")
    share = Share(key="m", request_seconds=60.0, request_lead_seconds=0.0)
    ask(database, share)
    ask(database, share)
    assert run().waits_for is None  # it does not run yet
    database.run_sync(set_status, "running")
    ask(database, share)
    since = run().waits_since
    assert (run().waits_for, since is None) == ("m", False)
    ask(database, Share(key="m", request_seconds=60.0, request_lead_seconds=0.0))
    assert run().waits_since == since
    pass_seconds(database, 60)
    assert ask(database, share, is_last=False).is_taken
    assert run().waits_for == "m"  # another call of the run waits still
    pass_seconds(database, 60)
    assert ask(database, share).is_taken
    assert (run().waits_for, run().waits_since) == (None, None)
    ask(database, share)
    database.run_sync(set_status, "cancelled")
    assert run().waits_for is None
