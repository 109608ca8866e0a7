"""Tests that need a program of the machine: `@pytest.mark.needs("ip")`.

Without it they are skipped, and fail where CI=true: there `make system` has installed what `system-packages.txt` lists.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

LIST = Path(__file__).with_name("system-packages.txt")


def packages() -> dict[str, str]:
    """Return the Debian package of each program."""
    lines = (line.partition("#")[0].split() for line in LIST.read_text().splitlines())
    return dict(filter(None, lines))


def unavailable(reason: str) -> NoReturn:
    """Skip the test that runs, or fail it in CI, where all that it needs is to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI=true: nothing may be missing)", pytrace=False)
    pytest.skip(reason)


def require(program: str) -> None:
    """Go on when a program is there; it is one of the list."""
    package = packages()[program]
    if shutil.which(program) is None:
        unavailable(f"no {program}: `make system` installs {package}")


def pytest_runtest_setup(item: Any) -> None:
    """Look for the programs that a test needs."""
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            require(program)
