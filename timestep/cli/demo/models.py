"""Which model the demo uses."""

from __future__ import annotations

import json
import os

OLLAMA_URL = "http://localhost:11434"
SCRIPTED = "scripted"


def choose_model(*, is_scripted: bool) -> tuple[str, str]:
    """Return the model, `openai`, `ollama:<name>` or `scripted`, and what people read about it."""
    if is_scripted:
        return SCRIPTED, "scripted"
    if os.environ.get("OPENAI_API_KEY"):
        return "openai", "OpenAI (OPENAI_API_KEY is set)"
    name = _find_ollama()
    return (f"ollama:{name}", f"{name} of the local Ollama") if name else (SCRIPTED, "scripted: no key, no Ollama")


def _find_ollama() -> str | None:
    """Return the first model of a local Ollama, unless TIMESTEP_PROBE_LOCAL is 0."""
    if os.environ.get("TIMESTEP_PROBE_LOCAL") == "0":
        return None
    import urllib.request

    try:
        with urllib.request.urlopen(f"{OLLAMA_URL}/api/tags", timeout=0.5) as answer:
            names = [str(each["name"]) for each in json.load(answer)["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return names[0] if names else None
