"""Many processes at once, some of which are killed. TIMESTEP_SWEEP multiplies their number."""

from __future__ import annotations

import os
import random

import pytest

SWEEP = int(os.environ.get("TIMESTEP_SWEEP", "1"))


def test_eight_processes_at_once_make_and_share_one_server(drill):
    drill.server(has_programs=False)
    for _ in range(SWEEP):
        children = [drill.child("sys.stdin.readline()") for _ in range(8)]
        assert len({child.line() for child in children}) == 1
        for child in children:
            child.end()
        assert drill.is_stopped()


@pytest.mark.long
def test_processes_that_come_and_go_never_find_the_server_missing(drill):
    code = """
for _ in range(10):
    with server.connect("postgres") as connection:
        connection.execute("select 1")
    server.release()
print("done", flush=True)
"""
    children = [drill.child(code) for _ in range(4 * SWEEP)]
    for child in children:
        child.line()
        assert child.line() == "done"
        child.end()
    assert drill.is_stopped()


@pytest.mark.long
def test_those_that_are_not_killed_always_get_through(drill):
    code = """
import psycopg
done = 0
while done < 20:
    try:
        with server.connect("postgres", autocommit=True) as connection:
            connection.execute("insert into work values (default)")
        done += 1
    except psycopg.OperationalError:
        continue  # the server died in the middle of the statement
    time.sleep(random.random() / 20)
print("done", flush=True)
"""
    with drill.server().connect("postgres") as connection:
        connection.execute("create table work (number int generated always as identity)")
    drill.server().release()
    for _ in range(SWEEP):
        children = [drill.child(code) for _ in range(6)]
        victims = random.sample(children, 2)
        for child in children:
            child.line()
        for victim in victims:
            victim.kill()
            drill.crash()
        for child in children:
            if child not in victims:
                assert child.line() == "done"
                child.end()
    drill.child().end()
    assert drill.is_stopped()
    with drill.server().connect("postgres") as connection:
        count = connection.execute("select count(*) from work").fetchone()
    assert count is not None
    assert count[0] >= 4 * 20 * SWEEP
