"""Fork executor processes from one that has imported everything and launched nothing.

Reads orders from stdin, one JSON line each, and answers with the child's pid; reports the exit code of each child.
An order names a function of `programs.py`, its arguments, and environment variables.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

import programs


def main() -> None:
    assert threading.active_count() == 1, "a thread would not survive the fork"
    signal.signal(signal.SIGCHLD, _reap)
    _tell({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        with _held_back():
            pid = os.fork()
            if pid == 0:
                _child(order)
            _tell({"started": pid})


def _child(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    output = os.open(order["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(number, target)
    os.environ.update(order["environment"])
    code = 1
    try:
        ended = getattr(programs, order["function"])(**order["arguments"])
        if inspect.iscoroutine(ended):
            asyncio.run(ended)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _held_back() -> Any:
    class HeldBack:
        def __enter__(self) -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])

        def __exit__(self, *error: object) -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])

    return HeldBack()


def _reap(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(message: dict[str, Any]) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


if __name__ == "__main__":
    main()
