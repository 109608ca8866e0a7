"""Ollama as a provider of models: at which host a model is, and why."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents import Model, ModelProvider

from timestep.errors import ModelNotConfiguredError
from timestep.event_loops import of_running_loop
from timestep.models.clients import http_of
from timestep.models.http_clients import certificates
from timestep.models.ollama_call import CLOUD_NAME, KEY_VARIABLE
from timestep.models.ollama_host import local_url
from timestep.models.ollama_model import OllamaModel

CLOUD_URL = f"https://{CLOUD_NAME}"
CLOUD_SUFFIX = "-cloud"

CONNECT_SECONDS = 10
ANSWER_SECONDS = 600
"""Longest silence of a server. A large model is loaded first; an answer that is not streamed comes at its end."""


@dataclass(frozen=True, kw_only=True)
class OllamaHost:
    """Where a model is asked, and why there."""

    url: str
    reason: str
    api_key: str | None = field(default=None, repr=False)


class OllamaModelProvider(ModelProvider):
    """Models of an Ollama server, local or in the cloud.

    The host of each model is the first of: `base_url`; the cloud for a name that ends in `-cloud`, and for every name
    when `api_key` is given; the cloud when `OLLAMA_API_KEY` is set; `OLLAMA_HOST`; `http://localhost:11434`. The key
    of the environment goes to the cloud alone. Nothing is contacted before the first call.

    Args:
        api_key: Key of the cloud, or of the server at `base_url`. Empty counts as absent.
        base_url: Address of a server, such as `http://gpu-1:11434`. Empty counts as absent.
        ollama_client: An `ollama.AsyncClient` to use for every model, instead of key and address.

    Raises:
        ModelNotConfiguredError: a client together with a key or an address. It is a ValueError too.
    """

    def __init__(
        self, api_key: str | None = None, base_url: str | None = None, ollama_client: Any | None = None
    ) -> None:
        self._api_key, self._base_url = _given(api_key), _given(base_url)
        self._client = ollama_client
        if ollama_client is not None and (self._api_key or self._base_url):
            raise ModelNotConfiguredError(
                "OllamaModelProvider was given an ollama_client together with an api_key or a base_url.",
                hint="Give the client the address and the headers, or leave the client out.",
            )

    def get_model(self, model_name: str | None) -> Model:
        """Return a model by its name at the server.

        Raises:
            ModelNotConfiguredError: the name is empty, or the package `ollama` is missing.
        """
        if not model_name:
            raise ModelNotConfiguredError(
                "Ollama has no default model.", hint='Name one, such as Agent(model="ollama/gpt-oss:20b").'
            )
        if self._client is not None:
            http_of(self._client)
            return OllamaModel(model_name, self._client)
        host = self.host_of(model_name)
        return OllamaModel.of_provider(model_name, own_client(host.url, host.api_key))

    def host_of(self, model_name: str, *, environ: Mapping[str, str] | None = None) -> OllamaHost:
        """Return where a model is asked, and why.

        Raises:
            ModelNotConfiguredError: `OLLAMA_HOST` decides, and is no address.
        """
        if self._client is not None:
            return OllamaHost(url=str(http_of(self._client).base_url).rstrip("/"), reason="the client that was given")
        if self._base_url is not None:
            return OllamaHost(url=self._base_url, reason="base_url", api_key=self._api_key)
        key = _given((os.environ if environ is None else environ).get(KEY_VARIABLE))
        if model_name.endswith(CLOUD_SUFFIX):
            return OllamaHost(url=CLOUD_URL, reason=f"its name ends in {CLOUD_SUFFIX}", api_key=self._api_key or key)
        if self._api_key is not None:
            return OllamaHost(url=CLOUD_URL, reason="api_key", api_key=self._api_key)
        if key is not None:
            return OllamaHost(url=CLOUD_URL, reason=KEY_VARIABLE, api_key=key)
        url, reason = local_url(environ=environ)
        return OllamaHost(url=url, reason=reason)


@functools.lru_cache(maxsize=64)
def own_client(url: str, api_key: str | None) -> Any:
    """Return the process's client of a host, with this key or with none; each event loop has connections of its own.

    Raises:
        ModelNotConfiguredError: the package `ollama` is missing, or the address is none.
    """
    client = _new_client(url, api_key)
    http = http_of(client)

    async def send(request: Any, **options: Any) -> Any:
        of_loop = of_running_loop(client, lambda: http_of(_new_client(url, api_key)), lambda made: made.aclose())
        return await of_loop.send(request, **options)

    http.send = send
    return client


def _new_client(url: str, api_key: str | None) -> Any:
    try:
        import httpx
        import ollama
    except ImportError as error:
        raise ModelNotConfiguredError(
            f"The package `ollama` cannot be imported: {error}.", hint="Run `pip install 'ollama>=0.6.0'`."
        ) from error
    scheme, mark, _ = url.partition("://")
    if (mark and scheme.lower() not in ("http", "https")) or any(map(str.isspace, url)):
        raise ModelNotConfiguredError(
            f"The address of the Ollama server is {url!r}.", hint="Write it as http://localhost:11434."
        )
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        client = ollama.AsyncClient(
            host=url,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            verify=certificates() if url.startswith("https://") else False,  # else there is nothing to verify
            limits=httpx.Limits(max_connections=None),
        )
    except (ValueError, httpx.InvalidURL) as error:
        raise ModelNotConfiguredError(
            f"The address of the Ollama server is {url!r}: {error}.", hint="Write it as http://localhost:11434."
        ) from error
    if not api_key:  # the package adds the key of the environment, whatever the host
        http_of(client).headers.pop("authorization", None)
    return client


def _given(value: str | None) -> str | None:
    return value.strip() or None if value is not None else None
