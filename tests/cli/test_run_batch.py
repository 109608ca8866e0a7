"""`timestep run --batch`: each line of a file is a run."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Shop

from timestep.cli.run_batch import read_batch
from timestep.errors import InvalidInputError

LIMIT_SECONDS = 60


def test_a_batch_is_run_once_however_often_it_is_started(shop: Shop, executor: None) -> None:
    shop.call("queues", "create", "quick", "--polling-interval-seconds", "0.1")
    (shop.folder / "asked.jsonl").write_text(
        '"order 1"\n\n{"input_items": "order 2", "session_id": "ann"}\n'
        '{"input_items": [{"role": "user", "content": "order 3"}], "workflow_id": "third", "agent": "broken"}\n'
    )
    words = ("run", "--batch", "asked.jsonl", "--agent", "support", "--queue", "quick", "--json")
    first = shop.call(*words)
    assert (first.returncode, json.loads(first.stdout)["statuses"]) == (4, {"failed": 1, "succeeded": 2})
    path = shop.folder / "asked.results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["output"] for row in results} == {"Your order 1 is on its way.", "Your order 2 is on its way.", None}
    bodies = len(shop.bodies())

    path.write_text(path.read_text() + '{"run_id": "asked')  # a crash in the middle of a line
    again = shop.call(*words)
    assert (again.returncode, json.loads(again.stdout)["statuses"]) == (4, {"failed": 1, "succeeded": 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == results
    path.unlink()
    assert shop.call(*words).returncode == 4
    assert len(path.read_text().splitlines()) == 3
    assert len(shop.bodies()) == bodies, "the runs are known"


def until(shop: Shop, name: str, *, lines: int) -> None:
    """Wait until a file has so many lines."""
    deadline = time.monotonic() + LIMIT_SECONDS
    path = shop.folder / name
    while not path.exists() or path.read_text().count("\n") < lines:
        assert time.monotonic() < deadline, f"{name} has not got {lines} lines"
        time.sleep(0.02)


def test_ctrl_c_leaves_the_runs_of_a_batch_to_the_executors(shop: Shop, executor: None) -> None:
    (shop.folder / "held.jsonl").write_text('"order 1"\n{"input_items": "order 99", "session_id": "carl"}\n')
    words = ("run", "--batch", "held.jsonl", "--agent", "support")
    with shop.start(*words) as process:
        until(shop, "held.results.jsonl", lines=1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, out) == (130, "")
    assert err == "The runs go on in the executors; the same command again waits for the rest.\n"

    shop.release()
    again = shop.call(*words)
    assert (again.returncode, again.stdout) == (0, "2 runs: 2 succeeded\n")
    assert "1 of 2 runs are in held.results.jsonl.\n" in again.stderr


def test_a_terminal_sees_how_far_a_batch_is(shop: Shop, executor: None) -> None:
    (shop.folder / "shown.jsonl").write_text('"order 1"\n"order 2"\n')
    screen, end = pty.openpty()
    words = (sys.executable, "-m", "timestep", "run", "--batch", "shown.jsonl", "--agent", "support")
    environment = shop.environment | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(words, cwd=shop.folder, env=environment, stdout=subprocess.PIPE, stderr=end) as process:
        os.close(end)
        seen = b""
        with contextlib.suppress(OSError):  # the last one has closed the terminal
            while part := os.read(screen, 4096):
                seen += part
    os.close(screen)
    text = seen.decode()
    assert process.returncode == 0, text
    assert re.search(r"runs .*0/2", text), text
    assert "  results:  shown.results.jsonl" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"one"\n{"input_items": \n', "Line 2 of bad.jsonl: it is not JSON"),
        ('"one"\n\n17\n', "Line 3 of bad.jsonl: it is int"),
        ('{"text": "one"}\n', "Line 1 of bad.jsonl: it has the unknown key 'text'"),
        ('{"input_items": []}\n', "Line 1 of bad.jsonl: input_items is a text or a list"),
        ('{"input_items": [{"role": "nobody", "content": "x"}]}\n', "the role 'nobody'"),
        ('{"input_items": "x", "priority": 0}\n', "priority is a whole number"),
        ('{"input_items": "x", "workflow_id": "a~b"}\n', "contains '~'"),
        ('{"input_items": "x", "workflow_id": "a"}\n{"input_items": "y", "workflow_id": "a"}\n', "that of line 1 too"),
        ("\n", "has no line"),
    ],
)
def test_a_malformed_line_is_refused_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text(text)

    with pytest.raises(InvalidInputError) as refused:
        read_batch(Path("bad.jsonl"), agent="support", prefix=None, results=None)
    assert says in str(refused.value)


def test_a_batch_with_a_malformed_line_queues_nothing(shop: Shop) -> None:
    (shop.folder / "bad.jsonl").write_text('{"input_items": "x", "workflow_id": "good"}\n17\n')
    refused = shop.call("run", "--batch", "bad.jsonl", "--agent", "support")

    assert (refused.returncode, "Line 2 of bad.jsonl" in refused.stderr) == (2, True)
    assert shop.call("runs", "show", "good").returncode == 3
