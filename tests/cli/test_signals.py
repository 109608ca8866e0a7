"""Waiting for SIGTERM and Ctrl-C: a signal at any instruction of the wait is noticed, a second one ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from timestep.cli.signals import StopSignal

ROUNDS = 300
LIMIT_SECONDS = 60


@pytest.fixture(autouse=True)
def handlers() -> Generator[None]:
    """Leave the handlers of this process as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_wakes_the_wait_at_once() -> None:
    stop = StopSignal()
    threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGTERM]).start()
    assert stop.wait(LIMIT_SECONDS)
    assert stop.has_come
    assert stop.wait(0)


def test_nothing_has_come_without_a_signal() -> None:
    assert not StopSignal().wait(0)


def test_a_signal_in_the_midst_of_a_look_is_never_lost() -> None:
    program = (
        "import os, signal, sys, threading\n"
        "from timestep.cli.signals import StopSignal\n"
        f"for number in range({ROUNDS}):\n"
        "    stop = StopSignal()\n"
        "    threading.Timer(number % 10 / 10_000, os.kill, [os.getpid(), signal.SIGTERM]).start()\n"
        "    while not stop.wait(0):\n"
        "        pass\n"
        "print('all came')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert (run.returncode, run.stdout) == (0, "all came\n"), run.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_second_one_ends_the_process_and_both_are_passed_on(number: signal.Signals, code: int) -> None:
    program = (
        "import time\n"
        "from timestep.cli.signals import StopSignal\n"
        "stop = StopSignal(told=lambda: print('told', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: stop.wait(10); time.sleep(0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in ("ready\n", "told\n"):
            assert process.stdout.readline() == line
            process.send_signal(number)
        assert process.communicate(timeout=LIMIT_SECONDS)[0] == "told\n"
    assert process.returncode == code
