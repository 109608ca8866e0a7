"""OpenAI-compatible servers: llama.cpp, vLLM, LM Studio and others."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from agents import Model, ModelProvider, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel
from openai import AsyncOpenAI, Omit

from timestep.errors import ModelNotConfiguredError
from timestep.models.http_clients import PerLoopClient
from timestep.models.ollama_provider import OllamaModelProvider
from timestep.records import ModelServer
from timestep.settings.urls import mask_url
from timestep.settings.values import is_http_url

NO_KEY = "none"
"""What is sent to a server without a key: the client wants one, and that of OpenAI is not for others."""


class OpenAICompatibleProvider(ModelProvider):
    """Models of a server that speaks OpenAI's protocol. Nothing of OpenAI's own environment is sent to it.

    Args:
        base_url: Its address with the path, such as `http://localhost:8080/v1`.
        api_key: Its key; none when absent or empty.
        use_responses: Speak the Responses API instead of Chat Completions.

    Raises:
        ModelNotConfiguredError: the address is none. It is a ValueError too.
    """

    def __init__(self, base_url: str, api_key: str | None = None, use_responses: bool = False) -> None:
        self.base_url = (base_url or "").strip()
        if not is_http_url(self.base_url):
            raise ModelNotConfiguredError(
                f"OpenAICompatibleProvider was given the base_url {mask_url(self.base_url)!r}.",
                hint="Write it with its path, such as http://localhost:8080/v1.",
            )
        self._find_key: Callable[[], str | None] = lambda: api_key
        self._use_responses = use_responses
        self._client: AsyncOpenAI | None = None

    @classmethod
    def of_settings(cls, prefix: str, server: ModelServer) -> OpenAICompatibleProvider:
        """Return the provider of a configured server; its key is read from the environment at the first model."""
        found = cls(server.base_url, use_responses=server.use_responses)
        found._find_key = lambda: configured_key(prefix, server)
        return found

    def get_model(self, model_name: str | None) -> Model:
        """Return a model by its name at the server.

        Raises:
            ModelNotConfiguredError: the name is empty, or the variable with the key is not set.
        """
        if not model_name:
            raise ModelNotConfiguredError(f"The server at {self.base_url} has no default model: name one.")
        client = self.client()
        if self._use_responses:
            return OpenAIResponsesModel(model_name, client)
        return _ChatModel(model_name, client)

    def client(self) -> AsyncOpenAI:
        """Return the client of this provider; the first call makes it."""
        if self._client is None:
            self._client = AsyncOpenAI(
                base_url=self.base_url,
                api_key=self._find_key() or NO_KEY,
                default_headers={"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()},  # type: ignore[dict-item]
                http_client=_http_client(),
            )
        return self._client


class _ChatModel(OpenAIChatCompletionsModel):
    """A model that asks for its usage when it is streamed: only OpenAI's own servers are asked by the SDK."""

    async def stream_response(
        self, system_instructions: str | None, input: Any, model_settings: ModelSettings, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        if model_settings.include_usage is None:
            model_settings = dataclasses.replace(model_settings, include_usage=True)
        async for event in super().stream_response(system_instructions, input, model_settings, *args, **kwargs):
            yield event


@functools.cache
def _http_client() -> httpx2.AsyncClient:
    """Return the process's HTTP client for these servers."""
    return PerLoopClient(limits=httpx2.Limits(max_connections=None))


def provider_of(prefix: str, server: ModelServer) -> ModelProvider:
    """Return the provider of a server that is named in the settings."""
    if server.kind == "ollama":
        return OllamaModelProvider(api_key=configured_key(prefix, server), base_url=server.base_url)
    return OpenAICompatibleProvider.of_settings(prefix, server)


def configured_key(prefix: str, server: ModelServer) -> str | None:
    """Return the key of a configured server, None when it needs none.

    Raises:
        ModelNotConfiguredError: the variable that has it is not set.
    """
    if server.api_key_env is None:
        return None
    key = os.environ.get(server.api_key_env, "").strip()
    if not key:
        raise ModelNotConfiguredError(
            f"The models {prefix}/... need a key, and {server.api_key_env} is not set.",
            hint=f"Set {server.api_key_env}, or leave out api_key_env of {prefix!r} in the settings.",
        )
    return key
