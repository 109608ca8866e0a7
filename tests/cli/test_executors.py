"""`timestep executors`: the processes that execute runs."""

from __future__ import annotations

import json

from command_line import Shop


def test_executors_that_are_gone_are_listed_as_such(stored: Shop) -> None:
    listed = stored.call("executors", "list")
    assert listed.stdout.splitlines()[0].split()[:3] == ["ID", "STATUS", "VERSION"]
    assert {line.split()[1] for line in listed.stdout.splitlines()[1:]} == {"gone"}
    found = json.loads(stored.call("executors", "list", "--json").stdout)
    assert {(each["application_version"], each["is_alive"], each["running"]) for each in found} == {
        (f"{stored.database}:1:1", False, 0)
    }
