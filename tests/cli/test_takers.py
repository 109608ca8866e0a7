"""A run for an agent that no executor has: which ones they have, and how to leave."""

from __future__ import annotations

import signal

import pytest
from command_line import Shop

pytestmark = pytest.mark.usefixtures("executor")

AGENTS = "broken, clerk, closer, desk, support"


def test_a_typo_says_which_agents_there_are_and_how_to_leave(shop: Shop) -> None:
    with shop.start("run", "order 3", "--agent", "suport", "--id", "typo") as process:
        assert process.stderr is not None
        said = [process.stderr.readline().rstrip() for _ in range(5)]
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    assert said[0] == "No live executor has the agent 'suport': the run waits in Postgres."
    assert said[1] == f"  executors have:  {AGENTS}; did you mean 'support'?"
    assert said[2:] == [
        "  start one:  timestep worker MODULE",
        "  leave:      Ctrl-C; what is queued stays",
        "  give it up: timestep runs cancel typo",
    ]
    assert process.returncode == 130
    assert "The run typo waits in Postgres for an executor with the agent 'suport'." in rest
    assert shop.call("runs", "cancel", "typo").returncode == 0


def test_a_detached_run_and_a_batch_say_it_too(shop: Shop) -> None:
    run = shop.call("run", "order 3", "--agent", "suport", "--id", "left", "--detach")
    assert (run.returncode, run.stdout) == (0, "left\n")
    assert f"  executors have:  {AGENTS}" in run.stderr
    assert "Ctrl-C" not in run.stderr
    (shop.folder / "batch.jsonl").write_text('"order 4"\n')
    batch = shop.call("run", "--batch", "batch.jsonl", "--agent", "suport", "--detach")
    assert (batch.returncode, batch.stdout) == (0, "1 runs are queued.\n")
    assert "has the agent 'suport': its runs wait in Postgres.\n  executors have:  " in batch.stderr


def test_of_an_agent_that_executors_have_nothing_is_said(shop: Shop) -> None:
    run = shop.call("run", "order 3", "--agent", "support", "--id", "fine", "--detach")
    assert (run.returncode, run.stdout, run.stderr) == (0, "fine\n", "")
