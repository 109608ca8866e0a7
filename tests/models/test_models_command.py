"""`timestep models`, and a run of a model without an agent: what is printed, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ollama_server import OllamaServer, Refusal, answer, call

import timestep

REPOSITORY = Path(timestep.__path__[0]).parent
TAGS = {"models": [{"name": "llama3:latest", "model": "llama3:latest"}, {"model": "gpt-oss:20b"}]}

Timestep = Callable[..., subprocess.CompletedProcess[str]]

_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_", "NO_COLOR")


@pytest.fixture
def command(tmp_path: Path, server: OllamaServer) -> Iterator[Timestep]:
    """Run `timestep WORDS...` where `gpu/` is the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    variables = kept | {
        "PYTHONPATH": str(REPOSITORY),
        "TIMESTEP_PROBE_LOCAL": "0",
        "TIMESTEP_DATA_DIR": str(tmp_path / "data"),
        "TIMESTEP_MODEL_PROVIDERS": json.dumps({
            "gpu": {"base_url": server.url, "kind": "ollama"},
            "lab": {"base_url": "http://127.0.0.1:9/v1"},
            "paid": {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "PAID_KEY"},
        }),
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }  # fmt: skip

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "timestep", *words],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    yield call
    if (tmp_path / "data").exists():
        call("db", "stop")


def test_the_list_shows_host_reason_and_state_of_each_provider(command: Timestep, server: OllamaServer) -> None:
    server.script(TAGS)
    ended = command("models", "list", "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[tuple[str, str], Any] = {(each["prefix"], each["url"]): each for each in json.loads(ended.stdout)}
    gpu = found["gpu", server.url]
    assert (gpu["state"], gpu["models"]) == ("reachable", ["gpu/gpt-oss:20b", "gpu/llama3:latest"])
    assert gpu["reason"] == "the settings, base_url"
    lab = found["lab", "http://127.0.0.1:9/v1"]
    assert (lab["state"], lab["problem"]) == ("unreachable", "Nothing answers at http://127.0.0.1:9/v1.")
    assert lab["hint"]
    assert "OLLAMA_API_KEY" in found["ollama", "https://ollama.com"]["problem"]
    assert found["ollama", "https://ollama.com"]["reason"] == "its name ends in -cloud"
    assert found["ollama", "https://ollama.com"]["state"] == "no key"
    assert found["ollama", "http://localhost:11434"]["reason"] == "default"
    assert "OPENAI_API_KEY" in found["openai", ""]["problem"]
    assert "PAID_KEY" in found["paid", ""]["problem"]
    assert [request.path for request in server.requests] == ["/api/tags"]


def test_the_list_is_a_table_for_people_and_asks_the_default_of_a_module(
    command: Timestep, server: OllamaServer, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "import timestep\nfound = timestep.MultiModelProviderMap()\n"
        f"found.add_provider('near', timestep.OllamaModelProvider(base_url={server.url!r}))\n"
        "timestep.set_default_model_provider(timestep.MultiModelProvider(found))\n"
    )
    server.script(TAGS, TAGS)
    ended = command("models", "list", "--module", "mine")
    assert ended.returncode == 0, ended.stderr
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("near/ ")]
    assert line.split() == ["near/", server.url, "the", "provider", "map,", "base_url", "reachable", "2"]
    assert "near/llama3:latest" in ended.stdout.splitlines()
    assert "hint: Set OPENAI_API_KEY" in ended.stderr
    assert "" not in ended.stderr.splitlines()


def test_a_check_says_what_works(command: Timestep, server: OllamaServer) -> None:
    city = answer('{"name": "Oslo", "country": "Norway"}')
    server.script(answer("Blue"), answer("", tool_calls=[call("add", first=2, second=3)]), city, answer("One two"))
    ended = command("models", "check", "gpu/llama3")
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["ok"] * 4
    assert ["format" in body for body in server.bodies] == [False, False, True, False]
    assert server.bodies[3]["stream"]


def test_a_check_says_what_does_not(command: Timestep, server: OllamaServer) -> None:
    server.script(answer("Blue"), answer("Five"), answer("Oslo"), Refusal(status=500))
    ended = command("models", "check", "gpu/llama3", "--json")
    assert ended.returncode == 1
    checks = json.loads(ended.stdout)["checks"]
    assert [(each["name"], each["works"]) for each in checks] == [
        ("text", True), ("tool call", False), ("structured output", False), ("stream", False),
    ]  # fmt: skip
    assert "it called no tool" in checks[1]["detail"]


def test_a_check_tells_what_to_do_once(command: Timestep) -> None:
    ended = command("models", "check", "lab/llama3")
    assert ended.returncode == 1
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["fail"] * 4
    assert ended.stderr.count("hint: Look at its address") == 1


def test_a_check_of_an_unknown_prefix_is_bad_usage(command: Timestep) -> None:
    ended = command("models", "check", "nope/llama3")
    assert ended.returncode == 2
    assert "gpu/, lab/, ollama/, openai/, paid/" in ended.stderr


@pytest.mark.slow
def test_a_model_that_is_configured_needs_no_code(command: Timestep, server: OllamaServer) -> None:
    server.script(answer("Boats float"))
    ended = command("run", "Tell me about boats", "--model", "gpu/llama3", "--id", "boats")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "Boats float"
    again = command("run", "Tell me about boats", "--model", "gpu/llama3", "--id", "boats")
    assert (again.stdout, len(server.requests)) == (ended.stdout, 1)
