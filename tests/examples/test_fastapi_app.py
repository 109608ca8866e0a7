"""The web application under uvicorn, driven over HTTP, its model behind connections that are kept open."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from keep_alive_server import KeepAliveServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT_SECONDS = 90

pytestmark = pytest.mark.slow

Json = dict[str, Any]


@pytest.fixture
def models() -> Iterator[KeepAliveServer]:
    server = KeepAliveServer()
    yield server
    server.close()


@pytest.fixture
def environment(models: KeepAliveServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    ours = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    made = kept | {
        "TIMESTEP_DATA_DIR": str(tmp_path),
        "TIMESTEP_PROBE_LOCAL": "0",
        "MODEL": "gpt-4.1",
        "OPENAI_BASE_URL": f"{models.url}/v1",
        "OPENAI_API_KEY": "none",
    }
    yield made
    timestep(made, "db", "stop")


def timestep(environment: dict[str, str], *arguments: str) -> str:
    """Return what a command prints."""
    command = [sys.executable, "-m", "timestep", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def wait_until(claim: Callable[[], Any], what: str) -> Any:
    """Wait for a state; the limit only ends a test that hangs."""
    limit = time.monotonic() + LIMIT_SECONDS
    while not (found := claim()):
        assert time.monotonic() < limit, f"never happened: {what}"
        time.sleep(0.05)
    return found


@contextmanager
def served(environment: dict[str, str], log: Path, *options: str) -> Generator[httpx2.Client]:
    """Serve the application for the time of a `with`; its value asks it."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_app:app", "--port", "0", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        found = wait_until(lambda: re.search(r"running on (http://[\d.:]+)", log.read_text()), "uvicorn listens")
        wait_until(lambda: "Application startup complete" in log.read_text(), "the application is ready")
        with httpx2.Client(base_url=found[1], timeout=LIMIT_SECONDS) as http:
            yield http
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert "Traceback" not in log.read_text()


def chat(http: httpx2.Client, run_id: str) -> str:
    """Run the agent until it asks whether it may call the tool, and return the path of the run."""
    response = http.post("/chat", params={"text": "call refund", "run_id": run_id}).raise_for_status()
    assert response.json() == {"run_id": run_id, "status": "interrupted"}
    return f"/runs/{run_id}"


def chat_until_answered(http: httpx2.Client, run_id: str) -> str:
    """As `chat`, and again when the worker that answers is killed."""
    while True:
        with suppress(httpx2.TransportError):
            return chat(http, run_id)


def wait_for(http: httpx2.Client, run: str, *statuses: str) -> Json:
    """Wait until the run has one of these statuses, and return its result."""

    def look() -> Json | None:
        response = http.get(run)  # an unknown run is just about to be stored
        return found if response.is_success and (found := response.json())["status"] in statuses else None

    return wait_until(look, f"{run} {statuses}")


def events(http: httpx2.Client, run: str) -> list[Json]:
    """Read the run's events to its end."""
    with http.stream("GET", f"{run}/events") as response:
        return [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line]


def test_chat_approve_events_and_result(environment: dict[str, str], models: KeepAliveServer, tmp_path: Path) -> None:
    with served(environment, tmp_path / "log") as http:
        for number in range(2):
            run = chat(http, f"order-{number}")
            assert http.post(f"{run}/approve", params={"by": "ann"}).json() == {"approved": "refund"}
            told = [event["type"] for event in events(http, run)]
            assert [each for each in told if each.startswith("run_")] == ["run_interrupted", "run_finished"]
            assert "tool_finished" in told
            ended = wait_for(http, run, "succeeded", "failed")
            assert ended == {"status": "succeeded", "output": "refunded over the only connection"}
    assert models.connections == 1


def test_a_worker_that_is_killed(environment: dict[str, str], models: KeepAliveServer, tmp_path: Path) -> None:
    with (
        served(environment, tmp_path / "log", "--workers", "2") as http,
        ThreadPoolExecutor() as threads,
    ):
        models.may_answer.clear()
        chats = [threads.submit(chat_until_answered, http, f"order-{number}") for number in range(3)]
        wait_until(lambda: len(models.requests) == 3, "all runs ask the model")
        found = json.loads(timestep(environment, "executors", "list", "--json"))
        victim = next(each for each in found if each["running"])
        os.kill(victim["pid"], signal.SIGKILL)
        models.may_answer.set()
        for run in [each.result() for each in chats]:
            http.post(f"{run}/approve", params={"by": "ann"}).raise_for_status()
            assert wait_for(http, run, "succeeded", "failed")["output"] == "refunded over the only connection"
    assert len(models.requests) > 6  # those of the killed worker are asked again
