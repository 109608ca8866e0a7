"""`timestep sessions`: what people see of conversations, and what deleting one says."""

from __future__ import annotations

import json

import pytest
from command_line import Shop

pytestmark = pytest.mark.usefixtures("stored")


def test_the_list_has_the_conversations_with_their_items_and_runs(shop: Shop) -> None:
    shown = shop.call("sessions", "list")
    head, line = shown.stdout.splitlines()
    assert head.split() == ["ID", "ITEMS", "RUNS", "UNFINISHED", "CREATED", "CHANGED"]
    assert line.split()[:4] == ["ann", "4", "1", "0"]
    [session] = json.loads(shop.call("sessions", "list", "--json").stdout)
    assert (session["session_id"], session["run_ids"], session["unfinished_run_ids"]) == ("ann", ["order-43"], [])


def test_a_conversation_is_shown_with_its_runs_and_what_was_said(shop: Shop) -> None:
    shown = shop.call("sessions", "show", "ann").stdout
    assert "runs" in shown
    assert "1: order-43" in shown
    assert "user" in shown
    assert "order 43" in shown
    assert "function_call" in shown
    assert "Your order 43 is on its way." in shown
    loaded = json.loads(shop.call("sessions", "show", "ann", "--json", "--limit", "1").stdout)
    assert loaded["session"]["items"] == 4
    assert [item["content"][0]["text"] for item in loaded["items"]] == ["Your order 43 is on its way."]


def test_one_that_is_not_there_is_not_found(shop: Shop) -> None:
    for verb in ("show", "delete"):
        ended = shop.call("sessions", verb, "bob")
        assert (ended.returncode, ended.stdout) == (3, "")
        assert ended.stderr == (
            "error: There is no session 'bob'.\n\nhint: List the sessions with `timestep sessions list`.\n"
        )


def test_deleting_one_says_which_runs_are_in_it_and_leaves_them(shop: Shop) -> None:
    shop.call("run", "order 1", "--agent", "shop:support", "--id", "first", "--session", "carl")
    shop.call("run", "order 2", "--agent", "support", "--id", "second", "--session", "carl", "--detach")
    refused = shop.call("sessions", "delete", "carl")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "error: In the session 'carl' 1 run has not ended: second." in refused.stderr
    assert "--force" in refused.stderr

    assert shop.call("runs", "cancel", "second").returncode == 0
    deleted = shop.call("sessions", "delete", "carl")
    assert (deleted.returncode, deleted.stdout) == (0, "carl  deleted, 4 items\n")
    assert deleted.stderr == "Its runs stay: 2: second, first\n  list them:  timestep runs list --session carl\n"
    assert json.loads(shop.call("sessions", "show", "carl", "--json").stdout)["items"] == []
    assert shop.call("runs", "result", "first").stdout == "Your order 1 is on its way.\n"


def test_force_deletes_one_whose_runs_have_not_ended(shop: Shop) -> None:
    shop.call("run", "order 2", "--agent", "support", "--id", "third", "--session", "dora", "--detach")
    deleted = shop.call("sessions", "delete", "dora", "--force", "--json")
    assert deleted.returncode == 0
    loaded = json.loads(deleted.stdout)
    assert (loaded["deleted"], loaded["session"]["unfinished_run_ids"]) == ("dora", ["third"])
