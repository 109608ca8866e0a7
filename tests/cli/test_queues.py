"""`timestep queues`, and `timestep run --batch`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Shop

from timestep.cli.batch import read_batch
from timestep.errors import InvalidInputError


@pytest.fixture(scope="module")
def worker(shop_of_module: Shop) -> Iterator[None]:
    """An executor with the agents of the shop."""
    process = shop_of_module.start("worker", "shop")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    yield
    process.terminate()
    process.communicate(timeout=60)


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


def test_a_paused_queue_keeps_its_runs_and_is_not_deleted(shop: Shop, worker: None) -> None:
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


def test_a_batch_is_run_once_however_often_it_is_started(shop: Shop, worker: None) -> None:
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
