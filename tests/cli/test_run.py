"""`timestep run` in its own process: what it prints, how it ends, what it leaves."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import fields

import pytest
from command_line import Shop

from timestep.records import Run

TURN = r"turn {}  model tiny-1  \d+\.\d s  1,234 tok"


def test_the_answer_goes_to_stdout_and_a_line_a_turn_to_stderr(shop: Shop) -> None:
    run = shop.call("run", "where is order 43", "--agent", "shop:support", "--id", "first")
    assert (run.returncode, run.stdout) == (0, "Your order 43 is on its way.\n"), run.stderr
    assert re.fullmatch(f"{TURN.format(1)}\n{TURN.format(2)}\n", run.stderr)
    assert shop.bodies() == ["model tiny-1 0", "tool look_up 43", "model tiny-1 1"]


def test_the_same_id_prints_the_recorded_answer_and_asks_nobody(shop: Shop) -> None:
    words = ("run", "order 1", "--agent", "shop.py:support", "--id", "again")
    first, bodies = shop.call(*words), shop.bodies()
    second = shop.call(*words, "--quiet")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert shop.bodies() == bodies
    other = shop.call("run", "order 2", "--agent", "shop:support", "--id", "again")
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr.startswith("error: The run 'again' is known with another input.")


def test_with_json_there_is_nothing_but_the_record_on_stdout(shop: Shop) -> None:
    run = shop.call(
        "run", "-", "--agent", "shop:support", "--id", "json", "--session", "s1", "--json", stdin="order 8\n"
    )
    assert run.returncode == 0
    loaded = json.loads(run.stdout)
    assert list(loaded) == [field.name for field in fields(Run)]
    assert (loaded["run_id"], loaded["status"], loaded["session_id"], loaded["input_items"]) == (
        "json",
        "succeeded",
        "s1",
        "order 8\n",
    )
    assert loaded["output"] == "Your order 8 is on its way."


def test_a_run_that_waits_for_an_approval_ends_with_5_and_one_that_failed_with_4(shop: Shop) -> None:
    waiting = shop.call("run", "money back", "--agent", "shop:clerk", "--id", "waiting")
    assert (waiting.returncode, waiting.stdout) == (5, "")
    head, hint = waiting.stderr.split("\n\nhint: ")
    assert head.endswith("error: The run 'waiting' waits for an approval of refund({\"order\": 7}).")
    assert re.fullmatch(
        "It waits in Postgres without a process, and goes on by itself when it is decided:\n"
        r"  timestep approvals approve (\w{8})\n  timestep approvals reject \1 --reason TEXT\n"
        "An executor must be there to go on with it:\n  timestep worker shop\n",
        hint,
    )
    failed = shop.call("run", "hello", "--agent", "shop:broken", "--id", "failing", "--json")
    assert failed.returncode == 4
    assert json.loads(failed.stdout)["error"]["message"] == "the model is out of order"
    assert "error: The run 'failing' failed: ValueError: the model is out of order\n\nhint: " in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_model_of_a_run_is_stored_and_asked(shop: Shop) -> None:
    run = shop.call("run", "hello", "--agent", "shop:support", "--id", "other-model", "--model", "nobody/knows-it")
    assert run.returncode == 4
    assert "nobody" in run.stderr
    assert shop.bodies() == []


def test_after_ctrl_c_the_run_is_in_postgres_and_goes_on_without_repeating_a_finished_step(shop: Shop) -> None:
    words = ("run", "where is order 99", "--agent", "shop:support", "--id", "held")
    with shop.start(*words) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("turn 1  ")
        wait_for_body(shop, "tool look_up 99")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest == (
        "The run held is in Postgres; nobody executes it now.\n"
        "  carry it on:  timestep worker shop\n"
        "  look at it:   timestep runs show held\n"
    )
    assert json.loads(shop.call("runs", "show", "held", "--json").stdout)["run"]["status"] == "running"
    shop.release()
    finished = shop.call(*words)
    assert (finished.returncode, finished.stdout) == (0, "Your order 99 is on its way.\n"), finished.stderr
    assert shop.bodies() == ["model tiny-1 0", "tool look_up 99", "tool look_up 99", "model tiny-1 1"]


def test_a_wait_that_is_over_leaves_the_run_as_ctrl_c_does(shop: Shop) -> None:
    run = shop.call_process("run", "order 99", "--agent", "shop:support", "--id", "patience", "--wait", "1")
    assert (run.returncode, run.stdout) == (1, "")
    assert "error: The run 'patience' has not ended within 1 s." in run.stderr
    assert shop.call("runs", "cancel", "patience").returncode == 0


def test_without_an_agent_and_an_executor_it_says_what_to_type(shop: Shop) -> None:
    run = shop.call("run", "hello")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(
        "error: No agent is named, and there is no live executor that has one.\n\nhint: Run one here"
    )
    assert "timestep worker my_app.agents" in run.stderr


def test_a_detached_run_waits_for_an_executor_and_its_id_is_all_of_stdout(shop: Shop) -> None:
    run = shop.call("run", "order 3", "--agent", "support", "--id", "later", "--detach")
    assert (run.returncode, run.stdout) == (0, "later\n"), run.stderr
    assert "No live executor has the agent 'support'" in run.stderr
    assert "timestep worker MODULE" in run.stderr
    assert shop.call("run", "order 3", "--agent", "support", "--id", "later", "--detach").stdout == "later\n"
    other = shop.call("run", "order 4", "--agent", "support", "--id", "later", "--detach")
    assert (other.returncode, other.stdout) == (2, "")
    assert shop.call("runs", "result", "later").returncode == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agent", "nonsense:support"], "There is no module 'nonsense' in"),
        (["--agent", "nonsense.py:support"], "There is no file 'nonsense.py'."),
        (["--agent", "shop:nobody"], "There is no 'nobody' in the module 'shop'."),
        (["--agent", "shop:no_agent"], "'shop:no_agent' is str, not an agents.Agent."),
        (
            ["--agent", "failing:x"],
            "The module 'failing' cannot be imported: ModuleNotFoundError: No module named 'absent'",
        ),
        (["--agent", "shop:support", "--id", "a~2"], "The run id 'a~2' contains '~'"),
        (["--agent", "shop:support", "--session", ""], "The session id '' is empty"),
        (["--agent", "shop:support", "--detach"], "--detach leaves runs to an executor"),
        (["--wait", "0"], "Invalid value for '--wait'"),
        (["--wait", "soon"], "Invalid value for '--wait'"),
    ],
)
def test_wrong_arguments_end_with_2_and_store_nothing(shop: Shop, words: list[str], message: str) -> None:
    (shop.folder / "failing.py").write_text("import absent\n")
    run = shop.call("run", "hello", *words)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"error: {message}")
    assert "\n\nhint: " in run.stderr
    assert shop.bodies() == []


def test_an_empty_text_is_refused(shop: Shop) -> None:
    for text in ("", " \n", "-"):
        run = shop.call("run", text, "--agent", "shop:support")
        assert (run.returncode, run.stderr.splitlines()[0]) == (2, "error: The input is empty.")


def wait_for_body(shop: Shop, line: str) -> None:
    import time

    deadline = time.monotonic() + 60
    while line not in shop.bodies():
        assert time.monotonic() < deadline, f"{line} did not come"
        time.sleep(0.02)
