"""`timestep runs`: what it prints of stored runs, the verbs, and the trace."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command_line import Shop

from timestep.client.trace import Node, trace_of, turns_of
from timestep.records import Run, Step, TokenUsage

START = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def stored(shop_of_module: Shop) -> Iterator[Shop]:
    """The shop with runs of every kind."""
    for words in (
        ("order 43", "--agent", "shop:support", "--id", "order-43", "--session", "ann"),
        ("order 5", "--agent", "shop:desk", "--id", "nested"),
        ("money back", "--agent", "shop:clerk", "--id", "waiting"),
        ("hello", "--agent", "shop:broken", "--id", "failing"),
        ("order 6", "--agent", "support", "--id", "order-6", "--detach"),
    ):
        shop_of_module.call("run", *words)
    yield shop_of_module
    (shop_of_module.folder / "bodies.txt").unlink(missing_ok=True)


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


def step(
    step_id: int, name: str, *, result: Any = None, segment: int = 1, seconds: float = 1, error: Any = None
) -> Step:
    kind = name.rpartition("/")[2].partition(":")[0]
    started = START + timedelta(seconds=step_id)
    return Step(
        segment=segment, step_id=step_id, name=name, kind=kind, started_at=started,
        finished_at=started + timedelta(seconds=seconds), result=result, error=error, attempt=1,
        usage=TokenUsage(requests=1, input_tokens=10, output_tokens=1) if kind == "model_turn" else None,
        model="m" if kind == "model_turn" else None,
    )  # fmt: skip


def asks(*calls: tuple[str, str]) -> dict[str, Any]:
    return {"output": [{"type": "function_call", "name": name, "call_id": call_id} for name, call_id in calls]}


def run_of(*, segment: int = 1) -> Run:
    return Run(
        run_id="r", agent="a", status="running", reason=None, segment=segment, session_id=None, input_items="hi",
        output=None, error=None, queue=None, executor_id=None, usage=TokenUsage(), created_at=START, started_at=START,
        finished_at=None,
    )  # fmt: skip


def outline(nodes: list[Node], depth: int = 0) -> list[str]:
    return [
        line
        for node in nodes
        for line in (f"{'  ' * depth}{node.kind} {node.name}", *outline(node.children, depth + 1))
    ]


def test_calls_stand_in_the_order_of_the_model_whatever_finished_first() -> None:
    steps = [
        step(1, "model_turn:1:a%2Fb", result=asks(("t", "c/1"), ("sub", "c 2"), ("t", "c/1"), ("later", "c3"))),
        step(3, "tool_call:1:t:c%2F1#2", result="second"),
        step(2, "tool_call:1:t:c%2F1", error={"type": "ValueError", "message": "no"}),
        step(4, "1:c%202/model_turn:1:inner", result=asks(("u", "x"))),
        step(5, "1:c%202/tool_call:1:u:x", result={"a": 1}),
        step(6, "input_guardrail:1:check"),
    ]
    trace = trace_of(run_of(), steps)
    assert outline(trace) == [
        "segment 1",
        "  turn 1",
        "    model m",
        "    tool t",
        "    agent sub",
        "      turn 1",
        "        model m",
        "        tool u",
        "    tool t",
        "    call later",
        "    input_guardrail check",
    ]
    calls = trace[0].children[0].children
    assert [call.detail for call in calls if call.kind == "tool"] == ["error ValueError: no", "second"]
    assert calls[-2].detail == "not recorded"
    assert (trace[0].tokens, turns_of(trace)) == (22, 1)
    assert trace[0].finished_at == START + timedelta(seconds=7)


def test_a_segment_shows_only_its_own_steps() -> None:
    copied = [step(1, "model_turn:1:a", result=asks(("t", "c"))), step(2, "tool_call:1:t:c", result="x")]
    again = [step(1, "model_turn:1:a", segment=2, result=asks(("t", "c"))), step(2, "tool_call:1:t:c", segment=2)]
    new = [
        step(3, "model_turn:2:a", segment=2),
        step(9, "1:gone/tool_call:1:u:x", segment=2),
        step(10, "session_write", segment=2),
    ]
    trace = trace_of(run_of(segment=2), [*copied, *again, *new])
    assert outline(trace)[4:] == [
        "segment 2",
        "  turn 2",
        "    model m",
        "  agent 1:gone",
        "    turn 1",
        "      tool u",
        "  step session_write",
    ]
    assert [node.detail for node in trace] == ["ended", "running, 2 steps copied from segment 1"]


def test_housekeeping_is_not_shown_unless_it_failed() -> None:
    steps = [step(1, "DBOS.closeStream"), step(2, "DBOS.sleep", error={"type": "E", "message": "x"})]
    assert outline(trace_of(run_of(), steps)) == ["segment 1", "  step DBOS.sleep"]


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


def test_executors_that_are_gone_are_listed_as_such(stored: Shop) -> None:
    listed = stored.call("executors", "list")
    assert listed.stdout.splitlines()[0].split()[:3] == ["ID", "STATUS", "VERSION"]
    assert {line.split()[1] for line in listed.stdout.splitlines()[1:]} == {"gone"}
    found = json.loads(stored.call("executors", "list", "--json").stdout)
    assert {(each["application_version"], each["is_alive"], each["running"]) for each in found} == {
        (f"{stored.database}:1:1", False, 0)
    }
