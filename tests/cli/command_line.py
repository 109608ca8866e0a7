"""A folder with agents, and the commands that run there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import timestep
from timestep.embedded_postgres import EmbeddedPostgres

REPOSITORY = Path(timestep.__path__[0]).parent


@dataclass
class Shop:
    """A folder with the agents of `shop.py`, and a database that the commands of a test module share."""

    folder: Path
    environment: dict[str, str]
    server: EmbeddedPostgres

    def call(
        self, *words: str, stdin: str | None = None, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `timestep WORDS...` to its end."""
        return subprocess.run(
            _words(words),
            cwd=self.folder,
            env=self.environment | (variables or {}),
            capture_output=True,
            text=True,
            check=False,
            input=stdin or "",
            timeout=120,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `timestep WORDS...` and leave it running; both of its outputs are pipes."""
        return subprocess.Popen(
            _words(words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bodies(self) -> list[str]:
        """Return the lines that the bodies of models and tools have left since the test began."""
        path = self.folder / "bodies.txt"
        return path.read_text().splitlines() if path.exists() else []

    def release(self) -> None:
        """Let the tool `look_up` return from order 99."""
        (self.folder / "release").touch()


def _words(words: tuple[str, ...]) -> list[str]:
    # As the installed script: the current folder is not on the Python path by itself.
    return [sys.executable, "-P", "-m", "timestep", *words]
