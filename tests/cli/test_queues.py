"""`timestep queues`: made, paused, resumed and deleted."""

from __future__ import annotations

import json

import pytest
from command_line import Shop


def test_a_queue_is_made_paused_resumed_and_deleted(shop: Shop) -> None:
    made = shop.call("queues", "create", "reports", "--global-concurrency", "2", "--rate-limit", "50")
    assert (made.returncode, made.stdout) == (0, "reports  made  2 at once, 50 starts in 60 s\n")
    other = shop.call("queues", "create", "reports")
    assert other.returncode == 2
    assert "global_concurrency is 2, not None" in other.stderr
    assert "--replace" in other.stderr
    assert "is paused" in shop.call("queues", "pause", "reports").stdout
    assert "was paused before" in shop.call("queues", "pause", "reports").stdout
    changed = json.loads(shop.call("queues", "create", "reports", "--rate-limit", "9", "--replace", "--json").stdout)
    assert (changed["change"], changed["queue"]["is_paused"]) == ("changed", True)
    assert "goes on" in shop.call("queues", "resume", "reports").stdout
    shown = json.loads(shop.call("queues", "show", "reports", "--json").stdout)
    assert (shown["is_paused"], shown["limits"]["rate_limit"]) == (False, 9)
    assert shop.call("queues", "delete", "reports").returncode == 0
    assert shop.call("queues", "show", "reports").returncode == 3


def test_a_paused_queue_keeps_its_runs_and_is_not_deleted(shop: Shop, executor: None) -> None:
    shop.call("queues", "create", "lane", "--polling-interval-seconds", "0.1")
    shop.call("queues", "pause", "lane")
    shop.call("run", "order 5", "--agent", "support", "--id", "held", "--queue", "lane", "--detach")
    [lane] = [each for each in json.loads(shop.call("queues", "list", "--json").stdout) if each["name"] == "lane"]
    assert (lane["waiting"], lane["running"], lane["is_paused"]) == (1, 0, True)
    refused = shop.call("queues", "delete", "lane")
    assert (refused.returncode, "1 runs wait" in refused.stderr) == (1, True)
    assert shop.bodies() == []

    shop.call("queues", "resume", "lane")
    assert shop.call("runs", "result", "held", "--wait", "60").stdout.strip() == "Your order 5 is on its way."


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "_dbos_x"), "engine itself uses"),
        (("create", "x", "--global-concurrency", "0"), "from 1 to 2147483647, not 0"),
        (("create", "x", "--global-concurrency", "1", "--worker-concurrency", "2"), "more than global_concurrency"),
        (("pause", "timestep_segments"), "engine itself uses"),
        (("delete", "timestep_agent_queue"), "made again at each launch"),
    ],
)
def test_what_is_no_queue_is_refused(shop: Shop, words: tuple[str, ...], says: str) -> None:
    refused = shop.call("queues", *words)

    assert refused.returncode == 2
    assert says in refused.stderr
    assert "hint:" in refused.stderr


def test_a_run_that_waits_for_its_session_says_who_has_it(shop: Shop, executor: None) -> None:
    for run_id in ("holds", "waits"):
        shop.call("run", "order 99", "--agent", "support", "--session", "dora", "--id", run_id, "--detach")
    shown = shop.call("runs", "show", "waits").stdout
    shop.release()
    assert "waits for its turn in the session dora: the run holds has it\n" in shown
    assert shop.call("runs", "result", "waits", "--wait", "60").returncode == 0
    assert "waits for its turn" not in shop.call("runs", "show", "waits").stdout
