"""What is done with the threads of DBOS."""

from __future__ import annotations

import threading

import pytest

from timestep.durable.seams.dbos_sdk import wait_for_what_is_taken


def test_a_stop_waits_for_what_is_taken_and_not_for_a_thread_that_is_about_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that is being started is listed already, and cannot be joined yet."""
    released, ended = threading.Event(), threading.Event()

    def take() -> None:
        released.wait()
        ended.set()

    taking = threading.Thread(target=take, name="queue-worker-one")
    taking.start()
    about_to_begin = threading.Thread(target=take, name="queue-worker-two")
    monkeypatch.setattr(threading, "enumerate", lambda: [about_to_begin, taking])
    threading.Timer(0.01, released.set).start()

    wait_for_what_is_taken()

    assert ended.is_set()
