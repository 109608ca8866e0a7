"""Where a model of Ollama is asked, with which key, and what each missing thing is called."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ollama
import pytest
from model_calls import ask
from ollama_server import OllamaServer, answer

from timestep import OllamaModel, OllamaModelProvider
from timestep.errors import ModelNotConfiguredError
from timestep.models.clients import http_of
from timestep.models.ollama_host import LOCAL_URL
from timestep.models.ollama_provider import CLOUD_URL

KEY = {"OLLAMA_API_KEY": "of-the-environment"}
HOSTS: list[tuple[dict[str, str], dict[str, str], str, str, str | None, str]] = [
    ({}, {}, "llama3", LOCAL_URL, None, "default"),
    ({}, KEY, "llama3", CLOUD_URL, "of-the-environment", "OLLAMA_API_KEY"),
    ({}, {}, "gpt-oss:20b-cloud", CLOUD_URL, None, "its name ends in -cloud"),
    ({}, KEY, "gpt-oss:20b-cloud", CLOUD_URL, "of-the-environment", "its name ends in -cloud"),
    ({"api_key": "k"}, KEY, "llama3", CLOUD_URL, "k", "api_key"),
    ({"api_key": "k"}, KEY, "gpt-oss:20b-cloud", CLOUD_URL, "k", "its name ends in -cloud"),
    ({"base_url": "http://gpu:1"}, KEY, "llama3", "http://gpu:1", None, "base_url"),
    ({"base_url": "http://gpu:1"}, KEY, "x-cloud", "http://gpu:1", None, "base_url"),
    ({"base_url": "http://gpu:1", "api_key": "k"}, KEY, "llama3", "http://gpu:1", "k", "base_url"),
    ({"base_url": " ", "api_key": ""}, {}, "llama3", LOCAL_URL, None, "default"),
    ({}, {"OLLAMA_API_KEY": " ", "OLLAMA_HOST": "http://gpu:1"}, "llama3", "http://gpu:1", None, "OLLAMA_HOST"),
    ({}, {"OLLAMA_HOST": "gpu"}, "llama3", "http://gpu:11434", None, "OLLAMA_HOST"),
    ({}, {"OLLAMA_HOST": " "}, "llama3", LOCAL_URL, None, "default"),
    ({}, {"OLLAMA_HOST": "gpu"}, "gpt-oss:20b-cloud", CLOUD_URL, None, "its name ends in -cloud"),
    ({}, KEY | {"OLLAMA_HOST": "gpu"}, "llama3", CLOUD_URL, "of-the-environment", "OLLAMA_API_KEY"),
    ({"base_url": "http://gpu:1"}, {"OLLAMA_HOST": "other"}, "llama3", "http://gpu:1", None, "base_url"),
]


@pytest.mark.parametrize(("given", "environ", "name", "url", "key", "reason"), HOSTS)
def test_the_host_is_decided_for_each_model(
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    environ: dict[str, str],
    name: str,
    url: str,
    key: str | None,
    reason: str,
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    provider = OllamaModelProvider(**given)
    host = provider.host_of(name)
    assert (host.url, host.api_key, host.reason) == (url, key, reason)
    model: Any = provider.get_model(name)
    http = http_of(model._client)
    assert str(http.base_url).startswith(url.replace(":11434", ""))
    assert http.headers.get("authorization") == (f"Bearer {key}" if key else None)


def test_a_model_of_the_cloud_after_a_local_one_goes_to_the_cloud() -> None:
    provider = OllamaModelProvider()
    local, cloud = provider.get_model("llama3"), provider.get_model("gpt-oss:20b-cloud")
    assert [http_of(model._client).base_url.host for model in (local, cloud)] == ["localhost", "ollama.com"]  # type: ignore[attr-defined]


async def test_the_key_of_the_environment_stays_from_other_hosts(
    monkeypatch: pytest.MonkeyPatch, server: OllamaServer, client_of: Callable[[str], ollama.AsyncClient]
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "of-the-environment")
    server.script(answer("Hi"), answer("Hi"), answer("Hi"))
    await ask(OllamaModelProvider(base_url=server.url).get_model("m"))
    async with client_of(server.url) as client:  # which carries the key for itself
        assert "authorization" in http_of(client).headers
        await ask(OllamaModelProvider(ollama_client=client).get_model("m"))
        await ask(OllamaModel("m", client))
        assert "authorization" in http_of(client).headers
    assert ["authorization" in request.headers for request in server.requests] == [False, False, False]


async def test_a_key_that_was_given_goes_where_it_was_given_for(server: OllamaServer) -> None:
    server.script(answer("Hi"))
    await ask(OllamaModelProvider(base_url=server.url, api_key="k").get_model("m"))
    assert server.requests[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("given", [{"api_key": "k"}, {"base_url": "http://gpu:1"}])
def test_a_client_together_with_key_or_address_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="ollama_client together with"):
        OllamaModelProvider(ollama_client=ollama.AsyncClient(), **given)


def test_nothing_is_made_before_the_first_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ollama", None)
    provider = OllamaModelProvider(base_url="http://missing:1")
    with pytest.raises(ModelNotConfiguredError, match="package `ollama`") as caught:
        provider.get_model("m")
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("name", [None, ""])
def test_a_model_has_a_name(name: str | None) -> None:
    with pytest.raises(ModelNotConfiguredError, match="no default model"):
        OllamaModelProvider().get_model(name)


@pytest.mark.parametrize("url", ["http://[gpu", "ftp://gpu", "gpu 1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ModelNotConfiguredError, match="address"):
        OllamaModelProvider(base_url=url).get_model("m")


async def test_one_provider_serves_several_event_loops(server: OllamaServer) -> None:
    import asyncio
    import threading

    provider = OllamaModelProvider(base_url=server.url)
    server.script(*[answer("Hi")] * 4)
    found: list[Any] = [await ask(provider.get_model("m"))]

    def elsewhere() -> None:
        found.append(asyncio.run(ask(provider.get_model("m"))))

    for _ in range(2):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
    found.append(await ask(provider.get_model("m")))
    assert len(found) == 4
