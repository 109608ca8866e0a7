"""`timestep models`, and a run of a model without an agent: what is printed, and the exit code."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Timestep
from ollama_server import OllamaServer, Refusal, answer, call

TAGS = {"models": [{"name": "llama3:latest", "model": "llama3:latest"}, {"model": "gpt-oss:20b"}]}


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    """A server of the test's own that does as it is told."""
    server = OllamaServer()
    yield server
    server.close()


@pytest.fixture
def command(timestep_command: Timestep, ollama: OllamaServer) -> Timestep:
    """Run `timestep WORDS...` where `gpu/` is that server."""
    providers = {
        "gpu": {"base_url": ollama.url, "kind": "ollama"},
        "lab": {"base_url": "http://127.0.0.1:9/v1"},
        "paid": {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "PAID_KEY"},
    }
    return functools.partial(timestep_command, variables={"TIMESTEP_MODEL_PROVIDERS": json.dumps(providers)})


def test_the_list_shows_host_reason_and_state_of_each_provider(command: Timestep, ollama: OllamaServer) -> None:
    ollama.script(TAGS)
    ended = command("models", "list", "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[tuple[str, str], Any] = {(each["prefix"], each["url"]): each for each in json.loads(ended.stdout)}
    gpu = found["gpu", ollama.url]
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
    assert [request.path for request in ollama.requests] == ["/api/tags"]


def test_the_list_has_the_local_ollama_at_the_host_of_the_environment(
    timestep_command: Timestep, ollama: OllamaServer
) -> None:
    ollama.script(TAGS)
    place = ollama.url.removeprefix("http://")
    ended = timestep_command(
        "models", "list", "--json", variables={"OLLAMA_HOST": place.replace("127.0.0.1", "0.0.0.0")}
    )
    found = {(each["prefix"], each["url"]): each for each in json.loads(ended.stdout)}
    local = found["ollama", f"http://{place}"]
    assert (local["reason"], local["state"], local["models"][0]) == ("OLLAMA_HOST", "reachable", "ollama/gpt-oss:20b")
    ended = timestep_command("models", "list", "--json", variables={"OLLAMA_HOST": "ftp://gpu"})
    [wrong] = [each for each in json.loads(ended.stdout) if each["reason"] == "OLLAMA_HOST"]
    assert (wrong["state"], "OLLAMA_HOST is 'ftp://gpu'" in wrong["problem"]) == ("unreachable", True)


def test_the_list_is_a_table_for_people_and_asks_the_default_of_a_module(
    command: Timestep, ollama: OllamaServer, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "import timestep\nfound = timestep.MultiModelProviderMap()\n"
        f"found.add_provider('near', timestep.OllamaModelProvider(base_url={ollama.url!r}))\n"
        "timestep.set_default_model_provider(timestep.MultiModelProvider(found))\n"
    )
    ollama.script(TAGS, TAGS)
    ended = command("models", "list", "--module", "mine")
    assert ended.returncode == 0, ended.stderr
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("near/ ")]
    assert line.split() == ["near/", ollama.url, "the", "provider", "map,", "base_url", "reachable", "2"]
    assert "near/llama3:latest" in ended.stdout.splitlines()
    assert "hint: Set OPENAI_API_KEY" in ended.stderr
    assert "" not in ended.stderr.splitlines()


def test_a_check_says_what_works(command: Timestep, ollama: OllamaServer) -> None:
    city = answer('{"name": "Oslo", "country": "Norway"}')
    ollama.script(answer("Blue"), answer("", tool_calls=[call("add", first=2, second=3)]), city, answer("One two"))
    ended = command("models", "check", "gpu/llama3")
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["ok"] * 4
    assert ["format" in body for body in ollama.bodies] == [False, False, True, False]
    assert ollama.bodies[3]["stream"]


def test_a_check_says_what_does_not(command: Timestep, ollama: OllamaServer) -> None:
    ollama.script(answer("Blue"), answer("Five"), answer("Oslo"), Refusal(status=500))
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
def test_a_model_that_is_configured_needs_no_code(command: Timestep, ollama: OllamaServer) -> None:
    ollama.script(answer("Boats float"))
    ended = command("run", "Tell me about boats", "--model", "gpu/llama3", "--id", "boats")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "Boats float"
    again = command("run", "Tell me about boats", "--model", "gpu/llama3", "--id", "boats")
    assert (again.stdout, len(ollama.requests)) == (ended.stdout, 1)
