"""`workflows/`, the deployment that works as it stands, without a key: each of its patterns, by the command line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from command_line import REPOSITORY, Shop

AGENTS = "assistant, cashier, editor, host, reporter, summariser"
LIMIT_SECONDS = 60


@contextlib.contextmanager
def started(shop: Shop, *words: str) -> Generator[subprocess.Popen[str]]:
    """Start the deployment, wait until it is ready, and end it with SIGTERM."""
    process = subprocess.Popen(
        words, cwd=REPOSITORY, env=shop.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        ready = next((line for line in iter(process.stdout.readline, "") if line.startswith("ready")), "")
        assert f"  agents {AGENTS}  queues reports, timestep_agent_queue, timestep_segments" in ready
        yield process
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=LIMIT_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def named(shop: Shop, name: str) -> Shop:
    """Return the shop with a database of its own."""
    return Shop(shop.folder, shop.environment | {"TIMESTEP_APP_NAME": name}, shop.server)


@pytest.fixture(scope="module")
def deployment(shop_of_module: Shop) -> Iterator[Shop]:
    """The deployment, started as its first lines say."""
    shop = named(shop_of_module, "deployment")
    with started(shop, sys.executable, "-m", "workflows") as process:
        yield shop
    assert process.returncode == 0


def test_dbos_starts_it_too(shop_of_module: Shop) -> None:
    shop, folder = named(shop_of_module, "deployment-of-dbos"), Path(sys.executable).parent
    shop.environment["PATH"] = f"{folder}{os.pathsep}{shop.environment['PATH']}"
    with started(shop, str(folder / "dbos"), "start"):
        assert shop.call("run", "hello there").stdout.startswith("You said: hello there\n")


def test_one_agent_run(deployment: Shop) -> None:
    assert deployment.call("run", "hello there").stdout.startswith("You said: hello there\n")


def test_a_conversation_waits_for_messages(deployment: Shop) -> None:
    asked = deployment.call("run", "Hello", "--agent", "host", "--id", "talk-1")
    assert asked.returncode == 5
    for text in ("I like the sea", "bye"):
        answered = deployment.call("runs", "answer", "talk-1", text, "--by", "ann")
        assert answered.returncode == 0, answered.stderr
        ended = deployment.call("runs", "result", "talk-1", "--wait", "60")
    assert ended.stdout == "Goodbye. We spoke about: Hello; I like the sea.\n", ended.stderr


def test_a_batch_fans_out_and_is_gathered(deployment: Shop) -> None:
    ended = deployment.call("run", "tides\nmills\nboats", "--agent", "editor")
    assert ended.stdout == "About tides.\nAbout mills.\nAbout boats.\n", ended.stderr


def test_a_payment_needs_two_people(deployment: Shop) -> None:
    for people, outcome in (("ann", "bob"), "Paid 20 to Ann.\n"), (("ann", "ann"), "Refused: who has prepared"):
        run_id = f"pay-{'-'.join(people)}"
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
