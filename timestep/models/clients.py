"""The client behind a model, which the Agents SDK, openai and ollama keep in private attributes alone."""

from __future__ import annotations

from typing import Any

from timestep.errors import ModelNotConfiguredError


def client_of(owner: object) -> Any:
    """Return the client that a model, a provider of Ollama models or another client calls with, None without one."""
    return getattr(owner, "_client", None)


def http_of(client: Any) -> Any:
    """Return the HTTP client of an `ollama.AsyncClient`.

    Raises:
        ModelNotConfiguredError: it is none.
    """
    http = client_of(client)
    if http is None or not hasattr(http, "aclose"):
        kind = type(client).__name__
        raise ModelNotConfiguredError(
            f"ollama_client is a {kind}, not an ollama.AsyncClient of a version that Timestep knows.",
            hint="Pass `ollama.AsyncClient(host=...)` of ollama>=0.6.",
        )
    return http


def base_url_of(model: object) -> str | None:
    """Return the URL at which a model is called, when it can be told.

    It is the model's `base_url`, that of its client (OpenAI), or of the HTTP client inside that one (Ollama).
    """
    client = client_of(model)
    urls = (getattr(each, "base_url", None) for each in (model, client, client_of(client)))
    return next((str(url) for url in urls if url), None)


def has_key(model: object) -> bool:
    """Whether the OpenAI client of a model has a key that is not empty, or is given one for each call."""
    client = client_of(model)
    has_provider = getattr(client, "_api_key_provider", None) is not None
    return has_provider or bool(str(getattr(client, "api_key", "none")).strip())
