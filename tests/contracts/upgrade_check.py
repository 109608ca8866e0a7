"""Try other releases of dbos and openai-agents in an environment of its own, pre-releases too: `make upgrade-check`.

    upgrade_check.py --releases dbos openai-agents --tests tests/contracts tests/durable

A release without a version is the newest one. Prints which seam breaks and by which names, then runs the tests. Ends
with 1 when a necessary seam is broken or a test fails; an optional one only makes things slower. The pins stay.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from private_names import uses_of

REPOSITORY = Path(__file__).parent.parent.parent
ENVIRONMENT = REPOSITORY / "build" / "upgrade"
PYTHON = str(ENVIRONMENT / "bin" / "python")
PACKAGES = ("dbos", "openai-agents")
SEAMS = ["timestep/durable/seams/*.py", "timestep/client/serializer.py", "timestep/models/clients.py"]
OPTIONAL = ("agents_speed.py", "dbos_speed.py")
ROOTS = "import timestep.durable.segment.runner, timestep.runtime.launch, timestep.client.client"


def main() -> int:
    """Make the environment, look at the seams and run the tests; return the exit code."""
    parser = argparse.ArgumentParser(description="Try other releases of dbos and openai-agents.")
    parser.add_argument("--releases", nargs="+", default=PACKAGES, help="what to install over the lock")
    parser.add_argument("--tests", nargs="*", default=[], help="what pytest runs afterwards")
    parser.add_argument("--seams", action="store_true", help="only look at the seams, in this environment")
    words = parser.parse_args()
    if words.seams:
        return show_seams()
    make_environment(words.releases)
    is_broken = run(PYTHON, __file__, "--seams") != 0
    if run(PYTHON, "-c", ROOTS) != 0:
        print("No test can run: Timestep refuses these releases.")
        return 1
    failed = words.tests and run(
        PYTHON, *["-m", "pytest", "-q", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile"], *words.tests
    )
    return int(is_broken or bool(failed))


def make_environment(releases: Sequence[str]) -> None:
    """Make an environment of what is locked, then put other releases in."""
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    needed = [
        [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)],
        [*pip, "--require-hashes", "--no-deps", "-r", str(REPOSITORY / "requirements.lock")],
        [*pip, "--no-deps", "--no-build-isolation", "-e", str(REPOSITORY)],
        [*pip, "--pre", "--upgrade", *releases],
    ]
    for command in needed:
        subprocess.run(command, check=True)


def show_seams() -> int:
    """Print a line for each seam, and its problems in the installed releases; return 1 when a necessary one has any."""
    print(*(f"{name} {version(name)}" for name in PACKAGES), sep=", ")
    is_broken = False
    for path in sorted(path for pattern in SEAMS for path in REPOSITORY.glob(pattern)):
        uses = uses_of(path, REPOSITORY)
        problems = [use for use in uses if use.problem]
        if not any(use.is_private for use in uses) and not problems:
            continue
        is_optional = path.name in OPTIONAL
        is_broken |= bool(problems) and not is_optional
        state = "ok" if not problems else "slower" if is_optional else "BROKEN"
        print(f"  {path.relative_to(REPOSITORY / 'timestep')!s:36} {state}")
        for use in problems:
            print(f"      line {use.line}: {use.name}: {use.problem}")
    return int(is_broken)


def run(*command: str) -> int:
    """Run a command in the repository and return its exit code."""
    sys.stdout.flush()
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
