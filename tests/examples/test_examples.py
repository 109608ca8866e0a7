"""Every example, as its first lines say it is run: without a key, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELPERS = ("scripted", "model_server", "fastapi_app")
FILES = sorted(path for path in EXAMPLES.glob("*.py") if path.stem not in HELPERS)

SAID = {
    "approve_in_the_same_process": ["  paying 5\nDone: paid 5, not paid: too much.", "refused: SnapshotAlreadyResumed"],
    "decide_from_the_command_line": [
        "is interrupted: it waits for refund",
        "kind      approval",
        "Approved refund(",
        "has succeeded: Done: 20 refunded",
    ],
    "fallback_model": [
        "gpt-oss:20b of this machine: you said 'Hello'\nagain: gpt-oss:20b of this machine: you said 'Hello'",
        "requests: 3,",
    ],
    "follow_from_elsewhere": [
        "going on from offset",
        "tool_finished",
        "text_delta",
        "run_finished",
        "says: I measured Ostend: 3.2 m",
    ],
    "gather_runs": [
        ":1:call_1_1:3: Paper C is about tides.",
        "has succeeded: Together: Paper A is about tides. Paper B",
    ],
    "launch_a_long_run": ["is queued", "reading Hanoi", "has succeeded: Summary: Oslo"],
    "mcp_tools": ["Ostend: high water at 14:20"],
    "ollama_hosts": [
        "drafter: llama3.2 of the laptop: you said 'Hello'",
        "editor: hf.co/unsloth/gpt-oss-120b:Q4 of the GPU: you said 'Hello'",
        "judge: qwen3-32b of the lab: you said 'Hello'",
    ],
    "openai_and_ollama": [
        "plain    gpt-5.2 of OpenAI: you said 'Hello'\ndurable  gpt-5.2 of OpenAI: you said 'Hello'",
        "plain    gpt-oss:20b of Ollama: you said 'Hello'\ndurable  gpt-oss:20b of Ollama: you said 'Hello'",
    ],
    "queue_a_batch": ["mail-2: mail 1 of yours: 'Please", "mail-3: mail 2 of yours: 'And the bill?'"],
    "recover_after_a_crash": ["the process ended with -9", "succeeded: The order is done: paid, booked, sent"],
    "save_here_resume_elsewhere": [
        "waits for refund",
        ": refunding order 7",
        "again, without a call: Order 7 is refunded.",
    ],
    "scheduled_job": ["has succeeded: I have mailed that 3 orders are open.", "schedule deleted"],
    "sessions": ["I have heard 3 messages; the first was 'My name is Ada.'", "has 6 items"],
    "stream_a_run": ["tool_started", "text_delta", "run_finished", "read again from offset"],
    "sub_agent": ["Found two papers on tide mills. Found two papers on tidal turbines.", "tool_call:1:search"],
    "web_search": ["I found 5 pages, first of all '1. Page 1 about tide mills'.", "   URL: https://example.com/5"],
}

_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_", "FIRECRAWL_")


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One embedded server for all examples, as a user has; it stops after its last user."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def environment(data_directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {"TIMESTEP_PROBE_LOCAL": "0", "TIMESTEP_DATA_DIR": str(data_directory), "PYTHONWARNINGS": "error"}


def run(path: Path, environment: dict[str, str]) -> str:
    """Run an example to its end and return what it printed."""
    ended = subprocess.run(
        [sys.executable, str(path)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_runs_without_a_key_and_shows_what_it_says(path: Path, environment: dict[str, str]) -> None:
    printed = run(path, environment)
    for words in SAID[path.stem]:
        assert words in printed


@pytest.mark.long
def test_launching_the_same_long_run_again_calls_no_tool(environment: dict[str, str], data_directory: Path) -> None:
    folder = environment | {"TIMESTEP_APP_NAME": "again"}
    path = EXAMPLES / "launch_a_long_run.py"
    first, second = run(path, folder), run(path, folder)
    assert first.count("reading") == 4
    assert "reading" not in second
    assert first.splitlines()[-1] == second.splitlines()[-1]


@pytest.mark.long
def test_a_crash_repeats_no_recorded_tool_and_keeps_the_key_of_the_started_one(environment: dict[str, str]) -> None:
    printed = run(EXAMPLES / "recover_after_a_crash.py", environment).splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in printed if line.startswith("  process")] == [
        "taking the payment", "booking the parcel", "booking the parcel", "sending the receipt",
    ]  # fmt: skip
    keys = [line.rsplit(" ", 1)[1] for line in printed if "booking the parcel" in line]
    assert len(set(keys)) == 1


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert path.stem in HELPERS or f"python examples/{path.name}" in text
