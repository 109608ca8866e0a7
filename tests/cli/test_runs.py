"""`timestep runs`: what it prints of stored runs, the verbs, and the trace."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command_line import Shop

from timestep.records import Run, Step


def test_list_prints_the_newest_first_and_filters(stored: Shop) -> None:
    lines = stored.call("runs", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "AGENT", "STATUS", "CREATED", "TIME", "TOKENS", "INPUT"]
    assert [line.split()[0] for line in lines[1:]][-5:] == ["order-6", "failing", "waiting", "nested", "order-43"]
    one = stored.call("runs", "list", "--status", "failed", "--agent", "broken", "--json")
    loaded = json.loads(one.stdout)
    assert [run["run_id"] for run in loaded] == ["failing"]
    assert list(loaded[0]) == [field.name for field in fields(Run)]
    assert [run["run_id"] for run in json.loads(stored.call("runs", "list", "--id", "order-", "--json").stdout)] == [
        "order-6",
        "order-43",
    ]
    assert [run["run_id"] for run in json.loads(stored.call("runs", "list", "--session", "ann", "--json").stdout)] == [
        "order-43"
    ]
    assert "  interrupted (approval)  " in stored.call("runs", "list", "--id", "waiting").stdout
    none = stored.call("runs", "list", "--agent", "nobody")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "No runs.\n")
    assert stored.call("runs", "list", "--agent", "nobody", "--json").stdout == "[]\n"


def test_show_draws_the_nested_trace(stored: Shop) -> None:
    run = stored.call("runs", "show", "nest")
    assert (run.returncode, run.stderr) == (0, "")
    head, _, table = run.stdout.partition("\n\n")
    assert head.splitlines()[0].split()[:3] == ["nested", "desk", "succeeded"]
    assert "3 turns  6,170 tok" in head
    assert [line[:30].rstrip() for line in table.splitlines()] == [
        "STEP",
        "segment 1",
        "  turn 1",
        "    model tiny-5",
        "    agent ask_support",
        "      turn 1",
        "        model tiny-1",
        "        tool look_up",
        "      turn 2",
        "        model tiny-1",
        "    tool look_up",
        "  turn 2",
        "    model tiny-5",
        "    handoff transfer_to_closer",
        "  turn 3",
        "    model tiny-4",
    ], table
    assert '{"order": 6} -> order 6 is on its way' in table


def test_show_says_what_a_run_waits_for(stored: Shop) -> None:
    shown = stored.call("runs", "show", "waiting").stdout
    assert 'waits for an approval of refund({"order": 7})\n  timestep approvals approve ' in shown
    assert "start one with `timestep worker MODULE`" in stored.call("runs", "show", "order-6").stdout
    failed = stored.call("runs", "show", "failing").stdout
    assert "error   ValueError: the model is out of order" in failed
    assert re.search(r'\n +File ".+/shop\.py", line \d+, in _broken\n', failed)
    assert failed.count("error ValueError: the model is out of order") == 1


def test_a_run_that_waits_for_a_rate_limit_says_so(stored: Shop) -> None:
    with stored.server.connect(stored.database, autocommit=True) as connection:
        connection.execute(
            "insert into timestep.runs (id, agent, status, input, input_digest, options, waits_for, waits_since) "
            "values ('slowed', 'support', 'running', '\"hi\"', 'd', '{}', 'gpt-4.1', now() - interval '12 s')"
        )
        try:
            listed = stored.call("runs", "list", "--id", "slowed").stdout
            shown = stored.call("runs", "show", "slowed").stdout
            loaded = json.loads(stored.call("runs", "show", "slowed", "--json").stdout)["run"]
        finally:
            connection.execute("delete from timestep.runs where id = 'slowed'")
    assert "  running (waiting for rate limit)  " in listed
    assert "waiting for rate limit gpt-4.1, began " in shown
    assert (loaded["waits_for"], loaded["waits_since"] is None) == ("gpt-4.1", False)


def test_show_as_json_has_the_run_its_approvals_and_the_tree(stored: Shop) -> None:
    loaded = json.loads(stored.call("runs", "show", "waiting", "--json").stdout)
    assert loaded["run"]["status"] == "interrupted"
    assert [approval["tool"] for approval in loaded["approvals"]] == ["refund"]
    turn = loaded["segments"][0]["children"][0]
    assert [(node["kind"], node["name"]) for node in turn["children"]] == [("model", "tiny-2"), ("call", "refund")]
    assert turn["children"][1]["detail"] == '{"order": 7} not recorded'


def test_steps_are_the_journal(stored: Shop) -> None:
    loaded = json.loads(stored.call("runs", "steps", "order-43", "--json").stdout)
    assert [step["name"] for step in loaded][:3] == [
        "model_turn:1:support",
        "tool_call:1:look_up:call_1",
        "model_turn:2:support",
    ]
    assert list(loaded[0]) == [field.name for field in fields(Step)]
    assert (loaded[0]["usage"]["input_tokens"], loaded[0]["attempt"]) == (1000, 1)
    assert loaded[1]["result"] == "order 43 is on its way"
    assert stored.call("runs", "steps", "order-43").stdout.splitlines()[1].startswith("model_turn:1:support")
    none = stored.call("runs", "steps", "order-6")
    assert (none.stdout, none.stderr) == ("", "No step is recorded yet.\n")


def test_result_prints_the_output_or_ends_as_the_run_did(stored: Shop) -> None:
    assert stored.call("runs", "result", "order-43").stdout == "Your order 43 is on its way.\n"
    codes = {name: stored.call("runs", "result", name).returncode for name in ("failing", "waiting", "order-6")}
    assert codes == {"failing": 4, "waiting": 5, "order-6": 1}
    late = stored.call("runs", "result", "order-6", "--wait", "0.2")
    assert (late.returncode, late.stderr.splitlines()[0]) == (
        1,
        "error: The run 'order-6' is queued and has no result yet.",
    )


@pytest.mark.parametrize("verb", ["show", "steps", "result", "cancel", "resume"])
def test_an_unknown_or_ambiguous_id_ends_with_3(stored: Shop, verb: str) -> None:
    unknown = stored.call("runs", verb, "nobody")
    assert (unknown.returncode, unknown.stdout) == (3, "")
    assert unknown.stderr == "error: There is no run 'nobody'.\n\nhint: List the runs with `timestep runs list`.\n"
    several = stored.call("runs", verb, "order-")
    assert several.returncode == 3
    assert several.stderr.startswith("error: More than one run begins with 'order-': order-6, order-43")


@pytest.mark.parametrize(
    "words",
    [["list", "--status", "done"], ["list", "--limit", "0"], ["show"], ["resume", "x", "--max-turns", "0"], ["tell"]],
)
def test_wrong_arguments_end_with_2(stored: Shop, words: list[str]) -> None:
    run = stored.call("runs", *words)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: ")


def test_a_cancelled_run_goes_on_after_resume(stored: Shop) -> None:
    stored.call("run", "order 9", "--agent", "support", "--id", "stopped", "--detach")
    cancelled = stored.call("runs", "cancel", "stopped")
    assert (cancelled.returncode, cancelled.stdout) == (0, "")
    assert cancelled.stderr == "The run stopped was queued and is cancelled.\n"
    assert stored.call("runs", "result", "stopped").returncode == 4
    assert stored.call("runs", "cancel", "order-43").returncode == 1
    resumed = stored.call("runs", "resume", "stopped")
    assert resumed.stderr.startswith("The run stopped was cancelled and is queued to go on.\nNo live executor has")
    assert stored.call("runs", "resume", "stopped").returncode == 1
    assert stored.call("runs", "resume", "waiting").returncode == 1
    finished = stored.call("run", "order 9", "--agent", "shop:support", "--id", "stopped")
    assert (finished.returncode, finished.stdout) == (0, "Your order 9 is on its way.\n")


def test_it_does_not_load_the_agents_sdk(stored: Shop) -> None:
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from timestep.cli import main\n"
        "main(['runs', 'show', 'order-43'])"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=stored.folder,
        env=stored.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(run.stderr.split())
    assert "dbos" in loaded
    assert not {"agents", "openai", "rich"} & loaded


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_journal_is_refused_and_not_loaded(stored: Shop) -> None:
    mark = stored.folder / "exploded"
    stored.call("run", "order 1", "--agent", "shop:support", "--id", "pickled")
    text = base64.b64encode(pickle.dumps(Bomb(mark))).decode()
    with psycopg.connect(stored.server.url(stored.database)) as connection:
        connection.execute(
            "update dbos.operation_outputs set output = %s, serialization = 'py_pickle' "
            "where workflow_uuid = 'pickled' and function_id = 2",
            [text],
        )
    run = stored.call("runs", "steps", "pickled", "--json")
    assert not mark.exists()
    assert text in run.stdout or run.returncode == 1


def test_stranded_runs_are_named_with_the_command_that_mends_it(stored: Shop) -> None:
    listed = stored.call("runs", "list", "--stranded")
    assert listed.returncode == 0
    assert re.search(
        r"^order-6  support  queued  no executor that takes runs is alive  Start one: `timestep worker MODULE`\.$",
        listed.stdout,
        re.MULTILINE,
    )
    found = json.loads(stored.call("runs", "list", "--stranded", "--json").stdout)
    assert {each["run_id"]: each["why"] for each in found}["order-6"] == "executor"
    assert "waiting" not in {each["run_id"] for each in found}
    doctor = json.loads(stored.call("doctor", "--json").stdout)
    check = next(check for check in doctor["checks"] if check["name"] == "stranded runs")
    assert check["status"] == "warn"
    assert "order-6: no executor that takes runs is alive" in check["detail"]
    assert "timestep runs list --stranded" in check["hint"]
    other = stored.call("runs", "list", "--stranded", "--status", "failed")
    assert (other.returncode, other.stdout) == (2, "")
    assert "--stranded lists the stranded runs of all" in other.stderr
