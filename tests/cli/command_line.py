"""A folder with agents, and the commands that run there: in the test's process, or in one of their own."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import timestep
from timestep import cli, settings
from timestep.cli.quiet import LIBRARIES
from timestep.durable.process.registered_agents import forget_agents
from timestep.embedded_postgres import EmbeddedPostgres
from timestep.embedded_postgres import server as embedded_server
from timestep.models import ollama_model

LIMIT_SECONDS = 60
REPOSITORY = Path(timestep.__path__[0]).parent

_LOGGERS = (None, "timestep", *LIBRARIES)
_OURS = ("TIMESTEP_", "PG", "DBOS_", "OPENAI_", "OLLAMA_", "NO_COLOR")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Timestep = Callable[..., Ended]
Play = Callable[[Callable[[], Any]], Callable[..., int]]


@dataclass
class Shop:
    """A folder with the agents of `shop.py`, and a database that the commands of a test module share."""

    folder: Path
    environment: dict[str, str]
    server: EmbeddedPostgres

    @property
    def database(self) -> str:
        """The name of the database."""
        return self.environment["TIMESTEP_APP_NAME"]

    def call(self, *words: str, stdin: str = "", variables: dict[str, str] | None = None) -> Ended:
        """Run `timestep WORDS...` to its end in this process."""
        return run_here(*words, folder=self.folder, environment=self.environment | (variables or {}), stdin=stdin)

    def call_process(self, *words: str) -> Ended:
        """Run `timestep WORDS...` to its end in a process of its own."""
        return run_process(*words, folder=self.folder, environment=self.environment)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `timestep WORDS...` in a process of its own and leave it running; both of its outputs are pipes."""
        return subprocess.Popen(
            _command(words),
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


@contextlib.contextmanager
def worker(shop: Shop, *modules: str) -> Generator[subprocess.Popen[str]]:
    """A worker that is ready. It is ended as a person would end it: a killed one leaves work to the next."""
    process = shop.start("worker", *modules)
    assert process.stdout is not None
    with process:
        try:
            process.ready_line = process.stdout.readline()  # type: ignore[attr-defined]
            assert process.ready_line.startswith("ready  "), process.communicate()  # type: ignore[attr-defined]
            yield process
        except BaseException:
            process.kill()
            raise
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=LIMIT_SECONDS)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return an environment where nothing is configured and nothing is probed, but these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {
        "PYTHONPATH": str(REPOSITORY),
        "TIMESTEP_PROBE_LOCAL": "0",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        **variables,
    }


def raising(error: BaseException) -> Callable[[], None]:
    """Return the body of a command that raises."""

    def body() -> None:
        raise error

    return body


def run_process(*words: str, folder: Path, environment: Mapping[str, str]) -> Ended:
    """Run `timestep WORDS...` to its end in a process of its own, without a terminal."""
    run = subprocess.run(
        _command(words),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    return Ended(run.returncode, run.stdout, run.stderr)


def run_here(*words: str, folder: Path, environment: Mapping[str, str], stdin: str = "") -> Ended:
    """Run `timestep WORDS...` to its end in this process, as in a new one without a terminal, and clean up after it.

    Not for a command that ends its process by itself, or lets a child process print.
    """
    given, out, err = (_stream(text) for text in (stdin, "", ""))
    with (
        _as_in_a_new_process(folder, environment),
        mock.patch.multiple(sys, stdin=given, stdout=out, stderr=err),
    ):
        code = cli.run_command_line(words)
        _end_process()
    return Ended(int(code), *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]


def _stream(text: str) -> io.TextIOWrapper:
    buffer = io.BytesIO(text.encode())
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", write_through=True)


def _command(words: tuple[str, ...]) -> list[str]:
    # As the installed script: the current folder is not on the Python path by itself.
    return [sys.executable, "-P", "-m", "timestep", *words]


@contextlib.contextmanager
def _as_in_a_new_process(folder: Path, environment: Mapping[str, str]) -> Generator[None]:
    """Be in `folder` with this environment, with nothing logged yet, and forget what is imported from there."""
    path, modules, holds = list(sys.path), set(sys.modules), set(embedded_server._holds)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    settings.reset_settings()
    settings._reported.clear()
    importlib.invalidate_caches()  # modules may have been written since the last command
    try:
        with contextlib.chdir(folder), mock.patch.dict(os.environ, environment, clear=True), _own_loggers():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
        for directory in set(embedded_server._holds) - holds:
            EmbeddedPostgres(directory).release()


def _end_process() -> None:
    """Stop and forget what a process would take with it."""
    timestep.cleanup_dbos()
    forget_agents()
    timestep.set_default_model_provider(None)
    ollama_model._told.clear()


def _is_of_a_new_process(record: logging.LogRecord) -> bool:
    return "Duplicate registration of function" not in record.getMessage()  # DBOS keeps the functions of a launch


@contextlib.contextmanager
def _own_loggers() -> Generator[None]:
    """Give the loggers no handler, level or filter that a command has not made itself."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.filters, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.filters = [], [_is_of_a_new_process]
        logger.setLevel(logging.WARNING if logger.name == "root" else logging.NOTSET)
    try:
        yield
    finally:
        for logger, (handlers, filters, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.filters = handlers, filters
            logger.setLevel(level)
