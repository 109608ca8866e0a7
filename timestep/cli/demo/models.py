"""Which model the demo uses."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator

from timestep.errors import ModelNotConfiguredError
from timestep.models.ollama_host import local_url

OPENAI, OLLAMA, SCRIPTED, LOCAL = "openai", "ollama", "scripted", "local"
MODELS = (OPENAI, OLLAMA, SCRIPTED, LOCAL)


def choose_model(asked: str | None = None) -> tuple[str, str]:
    """Return the model, `openai`, `ollama:<name>`, `scripted` or `local`, and what people read about it.

    Without a wish it is OpenAI's when there is a key, else one of the local Ollama, else the scripted one.

    Raises:
        ModelNotConfiguredError: the model that was asked for has no key or no server.
    """
    if asked == SCRIPTED:
        return SCRIPTED, "scripted"
    if asked == LOCAL:
        return LOCAL, "SmolLM2-135M on this machine writes every word; the calls of tools are scripted"
    if asked in (None, OPENAI) and os.environ.get("OPENAI_API_KEY", "").strip():
        return OPENAI, "OpenAI (OPENAI_API_KEY is set)"
    if asked == OPENAI:
        raise ModelNotConfiguredError(
            "There is no key of OpenAI.", hint="Set OPENAI_API_KEY, or try `timestep demo --model scripted`."
        )
    name = _find_ollama(is_asked=asked == OLLAMA)
    if name is None and asked == OLLAMA:
        raise ModelNotConfiguredError(
            f"No Ollama with a model answers at {local_url()[0]}.",
            hint="Start it with `ollama serve` and pull a model, or try `timestep demo --model scripted`.",
        )
    return (f"ollama:{name}", f"{name} of the local Ollama") if name else (SCRIPTED, "scripted: no key, no Ollama")


@contextlib.contextmanager
def served(model: str) -> Generator[str]:
    """Run the server of the local model for the time of a `with`; its value is the model, with its address."""
    if model != LOCAL:
        yield model
        return
    from timestep.cli.demo.local_model import local_model

    with local_model() as url:
        yield f"{LOCAL}:{url}"


def _find_ollama(*, is_asked: bool) -> str | None:
    """Return the first model of a local Ollama, unless TIMESTEP_PROBE_LOCAL is 0 and nobody asked for it."""
    if os.environ.get("TIMESTEP_PROBE_LOCAL") == "0" and not is_asked:
        return None
    import urllib.request

    try:
        with urllib.request.urlopen(f"{local_url()[0]}/api/tags", timeout=0.5) as answer:
            names = [str(each["name"]) for each in json.load(answer)["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return names[0] if names else None
