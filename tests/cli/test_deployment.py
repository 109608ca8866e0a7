"""`workflows/`, the deployment that works as it stands, without a key: each of its patterns, by the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import REPOSITORY, Shop

AGENTS = "assistant, cashier, editor, host, reporter, summariser"
LIMIT_SECONDS = 60


@pytest.fixture(scope="module", params=["python -m workflows", "dbos start"])
def deployment(shop_of_module: Shop, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """The deployment, started as its first lines say; all of it ends well with SIGTERM."""
    shop = Shop(shop_of_module.folder, shop_of_module.environment.copy(), shop_of_module.server)
    shop.environment["TIMESTEP_APP_NAME"] = "deployment"
    words = [sys.executable, "-m", "workflows"]
    if request.param == "dbos start":
        shop.server.ensure_database("deployment")
        folder = Path(sys.executable).parent
        shop.environment["PATH"] = f"{folder}{os.pathsep}{shop.environment['PATH']}"
        words = [str(folder / "dbos"), "start"]
    process = subprocess.Popen(
        words, cwd=REPOSITORY, env=shop.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        ready = next((line for line in lines if line.startswith("ready")), "")
        assert f"  agents {AGENTS}  queues reports, timestep_agent_queue, timestep_segments" in ready
        yield shop
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode in (0, -signal.SIGTERM)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_one_agent_run(deployment: Shop) -> None:
    assert deployment.call("run", "hello there").stdout.startswith("You said: hello there\n")


def test_a_conversation_waits_for_messages(deployment: Shop) -> None:
    asked = deployment.call("run", "Hello", "--agent", "host", "--id", f"talk-{id(deployment)}")
    assert asked.returncode == 5
    for text in ("I like the sea", "bye"):
        answered = deployment.call("runs", "answer", f"talk-{id(deployment)}", text, "--by", "ann")
        assert answered.returncode == 0, answered.stderr
        ended = deployment.call("runs", "result", f"talk-{id(deployment)}", "--wait", "60")
    assert ended.stdout == "Goodbye. We spoke about: Hello; I like the sea.\n", ended.stderr


def test_a_batch_fans_out_and_is_gathered(deployment: Shop) -> None:
    ended = deployment.call("run", "tides\nmills\nboats", "--agent", "editor")
    assert ended.stdout == "About tides.\nAbout mills.\nAbout boats.\n", ended.stderr


def test_a_payment_needs_two_people(deployment: Shop) -> None:
    for people, outcome in (("ann", "bob"), "Paid 20 to Ann.\n"), (("ann", "ann"), "Refused: who has prepared"):
        run_id = f"pay-{'-'.join(people)}-{id(deployment)}"
        asked = deployment.call("run", "Pay 20 to Ann", "--agent", "cashier", "--id", run_id)
        assert asked.returncode == 5
        for person in people:
            approved = deployment.call("approvals", "approve", run_id, "--by", person)
            assert approved.returncode == 0, approved.stderr
            ended = deployment.call("runs", "result", run_id, "--wait", "60")
        assert ended.stdout.startswith(outcome), ended.stderr


def test_the_nightly_report_is_on_a_schedule(deployment: Shop) -> None:
    assert "nightly-report  0 2 * * *" in deployment.call("schedules", "list").stdout
    run_id = deployment.call("schedules", "trigger", "nightly-report").stdout.strip()
    ended = deployment.call("runs", "result", run_id, "--wait", "60")
    assert ended.stdout.startswith("You said: The day that begins"), ended.stderr
