"""`timestep runs tail`: a run from its beginning, live, to its end."""

from __future__ import annotations

import json
import signal

from command_line import Shop


def test_tail_prints_a_run_that_has_ended_as_run_did(stored: Shop) -> None:
    tail = stored.call("runs", "tail", "order-43")
    assert (tail.returncode, tail.stdout) == (0, "Your order 43 is on its way.\n"), tail.stderr
    lines = tail.stderr.splitlines()
    assert lines[0].startswith("turn 1  model tiny-1  ")
    assert lines[1] == 'turn 1  tool look_up({"order": 43})'
    failed = stored.call("runs", "tail", "failing")
    assert (failed.returncode, failed.stdout) == (4, "")
    assert "error: The run 'failing' failed: ValueError: the model is out of order" in failed.stderr
    assert stored.call("runs", "tail", "nobody").returncode == 3
    assert stored.call("runs", "tail", "order-43", "--raw").returncode == 2


def test_tail_with_json_prints_a_line_an_event_from_any_offset(stored: Shop) -> None:
    tail = stored.call("runs", "tail", "order-43", "--json")
    assert (tail.returncode, tail.stderr) == (0, "")
    events = [json.loads(line) for line in tail.stdout.splitlines()]
    assert [event["type"] for event in events if event["type"] != "text_delta"] == [
        "turn_finished", "tool_started", "tool_finished", "turn_finished", "run_finished",
    ]  # fmt: skip
    rest = stored.call("runs", "tail", "order-43", "--json", "--raw", "--from-offset", str(events[1]["offset"]))
    assert [json.loads(line) for line in rest.stdout.splitlines()] == events[1:]
    failed = stored.call("runs", "tail", "failing", "--json")
    assert failed.returncode == 4
    assert json.loads(failed.stdout.splitlines()[-1])["status"] == "failed"


def test_tail_follows_a_run_that_waits_and_ends_quietly_with_ctrl_c(stored: Shop) -> None:
    with stored.start("runs", "tail", "waiting") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("turn 1  model tiny-2")
        assert process.stderr.readline() == (
            'interrupted (approval), waits for a decision about refund({"order": 7})\n'
        )
        process.send_signal(signal.SIGINT)
        rest = process.communicate()
    assert (process.returncode, rest) == (130, ("", ""))
