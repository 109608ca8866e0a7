"""`timestep schedules`: runs by the clock."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from command_line import Shop

from timestep.records import Schedule

NIGHTLY = ("nightly", "0 6 * * *", "Write the report.", "--agent", "desk")


@pytest.fixture(scope="module")
def nightly(shop_of_module: Shop) -> Shop:
    made = shop_of_module.call("schedules", "create", *NIGHTLY)
    assert made.returncode == 0, made.stderr
    return shop_of_module


def test_a_schedule_is_listed_shown_made_and_deleted(nightly: Shop) -> None:
    header, row = (" ".join(line.split()) for line in nightly.call("schedules", "list").stdout.splitlines())
    assert header == "NAME CRONTAB ZONE AGENT CATCH UP LAST TICK NEXT TICK"
    assert row.startswith("nightly 0 6 * * * UTC desk one in ")
    [listed] = json.loads(nightly.call("schedules", "list", "--json").stdout)
    assert list(listed) == [field.name for field in fields(Schedule)]

    shown = nightly.call("schedules", "show", "nightly")
    assert "Write the report." in shown.stdout
    assert "No live executor has the agent 'desk'" in shown.stderr

    made = nightly.call("schedules", "create", "brief", *NIGHTLY[1:], "--json")
    assert json.loads(made.stdout)["name"] == "brief"
    assert nightly.call("schedules", "delete", "brief").returncode == 0
    assert nightly.call("schedules", "show", "brief").returncode == 3


def test_pause_and_resume(nightly: Shop) -> None:
    assert "timestep schedules resume nightly" in nightly.call("schedules", "pause", "nightly").stderr
    assert "paused" in nightly.call("schedules", "list").stdout
    assert "runs next in " in nightly.call("schedules", "resume", "nightly").stderr
    assert not json.loads(nightly.call("schedules", "show", "nightly", "--json").stdout)["schedule"]["is_paused"]


def test_trigger_and_backfill_print_the_ids_of_runs_that_are_there(nightly: Shop) -> None:
    triggered = nightly.call("schedules", "trigger", "nightly").stdout.split()
    day = datetime.now(UTC).date() - timedelta(days=3)
    times = ("--from", str(day), "--to", str(day + timedelta(days=2)))
    filled = nightly.call("schedules", "backfill", "nightly", *times).stdout.split()

    assert filled == [f"nightly:{day + timedelta(days=number)}T06:00:00+00:00" for number in range(2)]
    shown = json.loads(nightly.call("schedules", "show", "nightly", "--json").stdout)
    assert {run["run_id"] for run in shown["runs"]} == {*triggered, *filled}
    again = nightly.call("schedules", "backfill", "nightly", *times)
    assert (again.returncode, again.stdout) == (0, "")
    assert "has a run" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", *NIGHTLY), 2, "There is a schedule 'nightly' already"),
        (("create", "x", "61 * * * *", "Go", "--agent", "desk"), 2, "out of range"),
        (("create", "x", "0 6 * * *", "Go", "--agent", "desk", "--timezone", "Mars"), 2, "'Mars' is not known"),
        (("create", "x", "0 6 * * *", "Go"), 2, "--agent"),
        (("create", "x", "0 6 * * *", "Go", "--agent", "desk", "--catch-up", "some"), 2, "'some'"),
        (("show", "nobody"), 3, "There is no schedule 'nobody'"),
        (("trigger", "nobody"), 3, "There is no schedule 'nobody'"),
        (("backfill", "nightly", "--from", "tomorrow"), 2, "'tomorrow' is no time"),
        (("backfill", "nightly", "--from", "2199-01-01"), 2, "no past time"),
        (("backfill", "nightly", "--from", "1999-01-01"), 2, "more than 1,000 ticks"),
    ],
)
def test_bad_input_is_refused_with_the_reason_and_a_hint(
    nightly: Shop, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = nightly.call("schedules", *words)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "hint: " in ended.stderr
