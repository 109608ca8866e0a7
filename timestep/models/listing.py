"""What the configured providers have: where each is, why there, whether it answers, and with which models."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from agents import ModelProvider
from agents.models.openai_provider import OpenAIProvider
from openai import AsyncOpenAI, OpenAIError

from timestep.errors import ModelNotConfiguredError, ModelServerUnreachableError, TimestepError
from timestep.models.clients import client_of, http_of
from timestep.models.compatible import OpenAICompatibleProvider
from timestep.models.multi_model import OPENAI, MultiModelProvider
from timestep.models.ollama_call import CLOUD_NAME, KEY_VARIABLE
from timestep.models.ollama_host import HOST_VARIABLE
from timestep.models.ollama_provider import CLOUD_SUFFIX, CLOUD_URL, OllamaHost, OllamaModelProvider, own_client
from timestep.settings import current_model_providers

ANSWER_SECONDS = 5.0
NO_ANSWER = ("APIConnectionError", "APITimeoutError", "ConnectError", "ConnectTimeout", "ReadTimeout")
"""What the clients of the providers raise when there is no server, or a silent one."""

State = Literal["reachable", "unreachable", "no key", "not looked at"]


@dataclass(frozen=True, kw_only=True)
class ProviderReport:
    """One provider, or one host of it. `models` are the names with the prefix, as an agent takes them."""

    prefix: str
    url: str
    reason: str
    state: State
    problem: str | None = None
    hint: str | None = None
    models: list[str] = field(default_factory=list)


async def look_at_providers(
    provider: ModelProvider, *, timeout_seconds: float = ANSWER_SECONDS
) -> list[ProviderReport]:
    """Return a report of each host of a provider, in the order of the prefixes; all are asked at once."""
    return [*await asyncio.gather(*(_report(host, timeout_seconds) for host in _hosts(provider)))]


@dataclass(frozen=True, kw_only=True)
class _Host:
    prefix: str
    provider: ModelProvider
    reason: str
    ollama: OllamaHost | None = None
    problem: ModelNotConfiguredError | None = None


def _hosts(provider: ModelProvider) -> Iterator[_Host]:
    if not isinstance(provider, MultiModelProvider):
        yield _Host(prefix="", provider=provider, reason="the default provider of this process")
        return
    configured = current_model_providers()
    own = provider.provider_map.get_mapping() if provider.provider_map is not None else {}
    for prefix in provider.prefixes():
        reason = "the provider map" if prefix in own else "the settings" if prefix in configured else "default"
        try:
            found = provider.find_provider(prefix)
        except ModelNotConfiguredError as error:
            yield _Host(prefix=prefix, provider=provider, reason=reason, problem=error)
            continue
        assert found is not None
        if isinstance(found, OllamaModelProvider):
            hosts: dict[str, OllamaHost] = {}
            for name in (f"x{CLOUD_SUFFIX}", "x"):
                try:
                    host = found.host_of(name)
                except ModelNotConfiguredError as error:
                    yield _Host(prefix=prefix, provider=found, reason=HOST_VARIABLE, problem=error)
                    continue
                hosts[host.url] = host
            for host in hosts.values():
                shown = host.reason if reason == "default" else f"{reason}, {host.reason}"
                yield _Host(prefix=prefix, provider=found, reason=shown, ollama=host)
        else:
            if prefix == OPENAI and reason == "default" and os.environ.get("OPENAI_BASE_URL", "").strip():
                reason = "OPENAI_BASE_URL"
            yield _Host(prefix=prefix, provider=found, reason=reason)


async def _report(host: _Host, timeout_seconds: float) -> ProviderReport:
    url, state = "", "unreachable"
    problem: TimestepError | Exception | None = host.problem
    names: list[str] = []
    try:
        if host.problem is not None:
            state = "unreachable" if host.reason == HOST_VARIABLE else "no key"
        elif host.ollama is not None:
            url = host.ollama.url
            if url == CLOUD_URL and host.ollama.api_key is None:
                state = "no key"
                problem = ModelNotConfiguredError(
                    f"{KEY_VARIABLE} is not set.", hint=f"Set it to use models of {CLOUD_NAME}."
                )
            else:
                names, state = await _ollama_names(host, timeout_seconds), "reachable"
        elif isinstance(host.provider, (OpenAIProvider, OpenAICompatibleProvider)):
            client = _openai_client(host.provider)
            url = str(client.base_url).rstrip("/")
            names, state = await _openai_names(client, timeout_seconds), "reachable"
        else:
            url, state = type(host.provider).__name__, "not looked at"
    except ModelNotConfiguredError as error:
        problem, state = error, "no key"
    except (TimestepError, OpenAIError, OSError, ValueError) as error:
        problem = error
    except Exception as error:  # noqa: BLE001 - whatever the client raises: it says what is wrong with one provider
        problem = error
    if state == "unreachable" and type(problem).__name__ in NO_ANSWER:
        problem = ModelServerUnreachableError(f"Nothing answers at {url}.")
    start = f"{host.prefix}/" if host.prefix and host.prefix != OPENAI else ""
    return ProviderReport(
        prefix=host.prefix,
        url=url,
        reason=host.reason,
        state=state,
        problem=" ".join(str(problem).split()) or type(problem).__name__ if problem is not None else None,
        hint=getattr(problem, "hint", None),
        models=sorted(f"{start}{name}" for name in names),
    )


def _openai_client(provider: OpenAIProvider | OpenAICompatibleProvider) -> AsyncOpenAI:
    if isinstance(provider, OpenAICompatibleProvider):
        return provider.client()
    found = MultiModelProvider()
    found.openai_provider = provider
    client = client_of(found.get_model(None))
    assert isinstance(client, AsyncOpenAI)
    return client


async def _openai_names(client: AsyncOpenAI, timeout_seconds: float) -> list[str]:
    page = await client.with_options(timeout=timeout_seconds, max_retries=0).models.list()
    return [model.id for model in page.data]


async def _ollama_names(host: _Host, timeout_seconds: float) -> list[str]:
    assert host.ollama is not None
    given = client_of(host.provider)
    client = given if given is not None else own_client(host.ollama.url, host.ollama.api_key)
    response = await http_of(client).get("/api/tags", timeout=timeout_seconds)
    response.raise_for_status()
    return [str(model.get("model") or model.get("name")) for model in response.json().get("models") or ()]
