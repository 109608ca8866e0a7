"""`timestep demo`: it shows and proves that nothing finished was done twice, and fails when something was."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from command_line import run_here

from timestep.cli.demo import models
from timestep.cli.demo.proof import Count, Kill, count_calls
from timestep.cli.demo.screen import Screen
from timestep.cli.demo.side_log import LogLine, SideLog
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.errors import ModelNotConfiguredError

pytestmark = pytest.mark.slow

REPEATING = """
import sys
from timestep.cli import demo, main
from timestep.store.process_database import current_database

keep = demo._after_kill

def forget_a_finished_step(drama, desk):
    recorded = keep(drama, desk)
    done = [line.step_id for line in drama.lines if line.phase == "end" and line.step_id in recorded]
    with current_database().engine.begin() as connection:
        connection.exec_driver_sql(
            "delete from dbos.operation_outputs where workflow_uuid = %s and function_id = %s", (drama.run_id, done[-1])
        )
    return recorded

demo._after_kill = forget_a_finished_step
main(["demo", "--seed", "3", "--kills", "1", "--json"])
"""
"""A demo in which Postgres loses a step that had finished, so that it is done again."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def variables(home: Path) -> dict[str, str]:
    """The environment of a fresh machine without a key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIMESTEP_", "PG", "OPENAI_"))}
    return kept | {"TIMESTEP_DATA_DIR": str(home / "data"), "TIMESTEP_PROBE_LOCAL": "0"}


@pytest.fixture(scope="module", autouse=True)
def stopped_server(home: Path) -> object:
    yield
    EmbeddedPostgres(home / "data" / "postgres" / "18").stop()


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def call(folder: Path, variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_demo_in_an_empty_folder_counts_what_was_made(empty: Path, variables: dict[str, str]) -> None:
    run = call(empty, variables, "-m", "timestep", "demo", "--seed", "7", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    told = json.loads(run.stdout)
    assert (told["seed"], told["kills"]) == (7, 2)
    assert told["output"].startswith("You fly to sunny Lisbon")
    for kind in ("model_calls", "tool_calls"):
        count = told[kind]
        assert (count["needed"], count["finished_again"]) == (7, 0)
        assert count["made"] == 7 + count["under_way"]
    assert list(empty.iterdir()) == []
    steps = json.loads(run_here("runs", "steps", told["run_id"], "--json", folder=empty, environment=variables).stdout)
    assert [step["kind"] for step in steps].count("tool_call") == 7
    assert [step["kind"] for step in steps].count("model_turn") == 7


@pytest.mark.long
def test_without_a_terminal_it_tells_line_by_line_and_shows_the_table_at_the_end(
    empty: Path, variables: dict[str, str]
) -> None:
    run = call(empty, variables, "-m", "timestep", "demo", "--kills", "1", "--seed", "6711")
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[0].startswith("Timestep demo: an agent plans a day in Lisbon")
    assert "\x1b" not in run.stdout
    assert re.search(r"^seed +\d+ +\(the same again: timestep demo --seed \d+\)$", run.stdout, re.MULTILINE)
    assert re.search(r"^kill -9  process 1 \(pid \d+\) .*steps? in Postgres$", run.stdout, re.MULTILINE)
    assert re.search(r"^process 2 \(pid \d+\) starts and takes the run over", run.stdout, re.MULTILINE)
    assert re.search(r"^step +process 1 +process 2", run.stdout, re.MULTILINE)
    assert "· replayed" in run.stdout or "with 0 steps" in run.stdout
    assert "1 kill, and nothing that had finished was done again." in lines[-2]


@pytest.mark.long
def test_a_finished_step_that_is_done_again_ends_with_1(empty: Path, variables: dict[str, str]) -> None:
    run = call(empty, variables, "-c", REPEATING)
    assert run.returncode == 1, run.stderr
    told = json.loads(run.stdout)
    assert told["model_calls"]["finished_again"] + told["tool_calls"]["finished_again"] == 1
    assert run.stderr.startswith("error: A finished call was made again.")


def test_on_a_terminal_the_table_is_drawn_in_place(empty: Path, variables: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = [sys.executable, "-P", "-m", "timestep", "demo", "--kills", "0"]
    process = subprocess.Popen(
        words, cwd=empty, env=variables | {"TERM": "xterm"}, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(leader)
    assert process.wait() == 0
    text = seen.decode()
    assert "\x1b[2K" in text
    assert re.search(r"\x1b\[\d+F", text)
    assert all(len(re.sub(r"\x1b\[[0-9;]*\w", "", line)) <= 80 for line in text.splitlines() if "process 1" in line)
    assert "no kill, and nothing that had finished was done again." in text


@pytest.mark.parametrize("words", [["--kills", "many"], ["--kills", "-1"], ["--seed", "x"], ["--model", "x"], ["more"]])
def test_wrong_arguments_end_with_2(empty: Path, variables: dict[str, str], words: list[str]) -> None:
    run = run_here("demo", *words, folder=empty, environment=variables)
    assert (run.returncode, run.stdout) == (2, "")


@pytest.mark.long
def test_a_process_that_fails_by_itself_is_told_with_its_last_line(empty: Path, variables: dict[str, str]) -> None:
    broken = variables | {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "not a url"}
    run = call(empty, broken, "-m", "timestep", "demo", "--json")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: The process of the demo ended with code 1: ")
    assert "timestep demo --model scripted" in run.stderr


def line(phase: str, step_id: int, kind: str = "tool") -> LogLine:
    return LogLine(phase=phase, pid=1, at=float(step_id), kind=kind, agent="a", name=f"t{step_id}", step_id=step_id)  # type: ignore[arg-type]


def test_the_proof_tells_what_was_under_way_from_what_had_finished() -> None:
    before = [
        line("start", 1),
        line("end", 1),
        line("start", 2),
        line("end", 2),
        line("start", 3),
        line("start", 9, "model"),
    ]
    kill = Kill(pid=1, recorded=frozenset({1}), lines=len(before))
    after = [line("start", 2), line("end", 2), line("start", 3), line("end", 3)]
    assert count_calls([*before, *after], [kill], kind="tool") == Count(needed=3, made=5, under_way=2, finished_again=0)
    repeated = [*before, *after, line("start", 1)]
    assert count_calls(repeated, [kill], kind="tool") == Count(needed=3, made=6, under_way=2, finished_again=1)
    assert count_calls(repeated, [kill], kind="model") == Count(needed=1, made=1, under_way=0, finished_again=0)
    assert count_calls([], [], kind="model") == Count(needed=0, made=0, under_way=0, finished_again=0)


def test_the_log_gives_whole_lines_once(tmp_path: Path) -> None:
    log = SideLog(tmp_path / "log")
    assert log.read_new() == []
    log.write("start", kind="tool", name="a", step_id=4)
    with log.path.open("ab") as file:
        file.write(b'{"half')
    assert [(each.phase, each.step_id, each.pid) for each in log.read_new()] == [("start", 4, os.getpid())]
    assert log.read_new() == []


def test_the_table_shows_what_ran_was_killed_and_was_replayed() -> None:
    screen = Screen(is_silent=True)
    screen.started(11, frozenset())
    for each in (line("start", 1, "model"), line("end", 1, "model"), line("start", 2), line("start", 3)):
        screen.add(each)
    screen.killed(frozenset({1}))
    screen.started(12, frozenset({1}))
    assert [row.split() for row in screen.table(80)][1][-2:] == ["in", "Postgres"]
    screen.add(line("start", 3))
    assert [row.split() for row in screen.table(80)] == [
        ["step", "process", "1", "process", "2"],
        ["a", "asks", "its", "model", "✓", "0.0", "s", "·", "replayed"],
        ["t2", "✗", "killed"],
        ["t3", "✗", "killed", "…", "runs"],
    ]
    assert next(row.split() for row in screen.table(50)) == ["step", "process", "2"]


def test_the_scripted_model_is_for_machines_without_key_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESTEP_PROBE_LOCAL", "0")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert models.choose_model()[0] == "scripted"
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert models.choose_model()[0] == "openai"
    assert models.choose_model("scripted")[0] == "scripted"


@pytest.mark.parametrize(("asked", "said"), [("openai", "OPENAI_API_KEY"), ("ollama", "ollama serve")])
def test_a_model_that_is_asked_for_and_is_not_there_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, asked: str, said: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    with pytest.raises(ModelNotConfiguredError) as caught:
        models.choose_model(asked)
    assert said in caught.value.hint


def test_without_its_packages_the_local_model_says_how_to_install_them(empty: Path, variables: dict[str, str]) -> None:
    program = "import sys; sys.modules.update(xllamacpp=None); from timestep.cli import main; main()"
    run = call(empty, variables, "-c", program, "demo", "--model", "local", "--json")
    assert (run.returncode, run.stdout) == (1, "")
    assert "needs xllamacpp" in run.stderr
    assert "pip install --no-deps xllamacpp" in run.stderr
