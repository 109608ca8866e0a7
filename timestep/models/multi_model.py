"""One name picks the provider: `gpt-5.2`, `ollama/gpt-oss:20b`, `local/smollm2`, or several of them by `|`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from agents import Model, ModelProvider
from agents.models.multi_provider import MultiProvider
from agents.models.openai_provider import OpenAIProvider
from openai import AsyncOpenAI, OpenAIError

from timestep.errors import ModelNotConfiguredError
from timestep.models import http_clients
from timestep.models.clients import has_key
from timestep.models.compatible import provider_of
from timestep.models.model_chain import SEPARATOR, ModelChain
from timestep.models.ollama_provider import OllamaModelProvider
from timestep.settings import current_model_providers

OPENAI = "openai"
OLLAMA = "ollama"
OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_URL = "OPENAI_BASE_URL"

_OF_THE_SDK = ("litellm", "any-llm")
"""Prefixes that the SDK's own provider knows; their packages are extras of the SDK."""


class MultiModelProviderMap:
    """Providers by the prefix of a model's name, the part before the first `/`."""

    def __init__(self) -> None:
        self._mapping: dict[str, ModelProvider] = {}

    def has_prefix(self, prefix: str) -> bool:
        """Return whether the prefix has a provider."""
        return prefix in self._mapping

    def get_mapping(self) -> dict[str, ModelProvider]:
        """Return a copy of the map."""
        return dict(self._mapping)

    def set_mapping(self, mapping: Mapping[str, ModelProvider]) -> None:
        """Replace the whole map.

        Raises:
            ModelNotConfiguredError: a prefix could not be the beginning of a model's name. It is a ValueError too.
        """
        self._mapping = {_checked(prefix): provider for prefix, provider in mapping.items()}

    def get_provider(self, prefix: str) -> ModelProvider | None:
        """Return the provider of a prefix, or None."""
        return self._mapping.get(prefix)

    def add_provider(self, prefix: str, provider: ModelProvider) -> None:
        """Give a prefix its provider, instead of the one that it has.

        Raises:
            ModelNotConfiguredError: the prefix could not be the beginning of a model's name. It is a ValueError too.
        """
        self._mapping[_checked(prefix)] = provider

    def remove_provider(self, prefix: str) -> None:
        """Take the provider of a prefix away.

        Raises:
            KeyError: it has none.
        """
        del self._mapping[prefix]


class MultiModelProvider(ModelProvider):
    """Models of several providers: names without a prefix and `openai/` go to OpenAI, `ollama/` to Ollama.

    Prefixes of `provider_map` come first, then those of the setting `model_providers`. Only the first `/` of a name
    splits. `first|second` is a fallback: the second answers when the first fails. The client of OpenAI is made at its
    first model, so that programs without OpenAI need no key.

    Args:
        provider_map: Further prefixes; it may be changed later.
        openai_api_key: Key of OpenAI. Empty counts as absent, as with the other options of OpenAI.
        openai_client: A client of OpenAI; the other options of OpenAI are then not used.
        openai_use_responses: Speak Chat Completions when False.
    """

    def __init__(
        self,
        provider_map: MultiModelProviderMap | None = None,
        openai_api_key: str | None = None,
        openai_base_url: str | None = None,
        openai_client: AsyncOpenAI | None = None,
        openai_organization: str | None = None,
        openai_project: str | None = None,
        openai_use_responses: bool | None = None,
    ) -> None:
        self.provider_map = provider_map
        options: dict[str, Any] = {
            "api_key": openai_api_key or None,
            "base_url": openai_base_url or _openai_url_of_environment(),
            "organization": openai_organization or None,
            "project": openai_project or None,
        }
        http_clients.install()
        self._is_key_given = bool(openai_api_key) or openai_client is not None
        if openai_client is not None:
            options = {"openai_client": openai_client}
        self.openai_provider = OpenAIProvider(**options, use_responses=openai_use_responses)
        self._made: dict[str, ModelProvider] = {}

    def get_model(self, model_name: str | None) -> Model:
        """Return the model of a name; None is the SDK's default model.

        Raises:
            ModelNotConfiguredError: the prefix is unknown, or the provider has no key. It is a ValueError too.
        """
        if model_name is not None and SEPARATOR in model_name:
            return ModelChain(*(part.strip() for part in model_name.split(SEPARATOR)), find=self.get_model)
        prefix, slash, name = (model_name or "").partition("/")
        if not slash:
            return self._openai_model(model_name or None)
        provider = self.find_provider(prefix)
        if provider is self.openai_provider:
            return self._openai_model(name or None)
        if provider is None and prefix in _OF_THE_SDK:
            return MultiProvider().get_model(model_name)
        if provider is None:
            raise ModelNotConfiguredError(
                f"No provider has the prefix {prefix!r} of the model {model_name!r}; "
                f"there are: {', '.join(f'{known}/' for known in self.prefixes())}.",
                hint="Correct the name, add_provider(...) to the map, or name the server in TIMESTEP_MODEL_PROVIDERS.",
            )
        return provider.get_model(name)

    def prefixes(self) -> list[str]:
        """Return the prefixes that have a provider."""
        own = self.provider_map.get_mapping() if self.provider_map is not None else {}
        return sorted({*own, *current_model_providers(), OPENAI, OLLAMA})

    def find_provider(self, prefix: str) -> ModelProvider | None:
        """Return the provider of a prefix, or None; one that is not in the map is made once."""
        if self.provider_map is not None and self.provider_map.has_prefix(prefix):
            return self.provider_map.get_provider(prefix)
        server = current_model_providers().get(prefix)
        if server is None and prefix == OPENAI:
            return self.openai_provider
        if prefix not in self._made and (server is not None or prefix == OLLAMA):
            self._made[prefix] = OllamaModelProvider() if server is None else provider_of(prefix, server)
        return self._made.get(prefix)

    async def aclose(self) -> None:
        """Release what the providers hold; the clients stay usable."""
        own = self.provider_map.get_mapping() if self.provider_map is not None else {}
        for provider in {
            id(each): each for each in (self.openai_provider, *own.values(), *self._made.values())
        }.values():
            await provider.aclose()

    def _openai_model(self, name: str | None) -> Model:
        try:
            model = self.openai_provider.get_model(name)
        except OpenAIError as error:
            raise _without_key(name) from error
        # The client takes an empty variable for a key, and would send it.
        if not self._is_key_given and os.environ.get(OPENAI_KEY, "none").strip() == "" and not has_key(model):
            raise _without_key(name)
        return model


_default: ModelProvider | None = None


def set_default_model_provider(provider: ModelProvider | None) -> None:
    """Make `provider` the default of plain and durable runs of this process; None brings the first one back.

    Call it where the agents are registered, so that every process which executes their runs has it.
    """
    global _default
    _default = provider


def default_model_provider() -> ModelProvider:
    """Return the provider of runs that have none of their own; it looks at environment and settings afresh."""
    return _default if _default is not None else MultiModelProvider()


def is_default_of_the_sdk(provider: ModelProvider) -> bool:
    """Return whether a provider is what the SDK puts into a RunConfig that names none."""
    if type(provider) is not MultiProvider:
        return False
    plain = MultiProvider()
    is_bare = provider.provider_map is None and _plain_fields(provider) == _plain_fields(plain)
    return is_bare and _plain_fields(provider.openai_provider) == _plain_fields(plain.openai_provider)


def _openai_url_of_environment() -> str | None:
    """Return the address of OPENAI_BASE_URL; an empty one counts as absent, but not for the client of OpenAI."""
    given = os.environ.get(OPENAI_URL)
    return None if given is None else given.strip() or "https://api.openai.com/v1"


def _plain_fields(thing: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(thing).items() if isinstance(value, (str, bool, int, type(None)))}


def _checked(prefix: str) -> str:
    if not prefix or "/" in prefix or SEPARATOR in prefix or prefix != prefix.strip():
        raise ModelNotConfiguredError(
            f"{prefix!r} is no prefix of a model's name.", hint="Give the part before the first /, such as `local`."
        )
    return prefix


def _without_key(name: str | None) -> ModelNotConfiguredError:
    model = f"The model {name!r}" if name else "The default model"
    return ModelNotConfiguredError(
        f"{model} is one of OpenAI, and there is no key: {OPENAI_KEY} is not set.",
        hint=f"Set {OPENAI_KEY}, or name another model, such as ollama/gpt-oss:20b.",
    )
