"""One name picks the provider; which one is the default, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, Model, ModelProvider, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig
from agents.models.multi_provider import MultiProvider, MultiProviderMap
from agents.testing import ModelStep, ScriptedModel, assistant_message
from model_calls import ask, stream
from ollama_server import OllamaServer, answer
from openai import AsyncOpenAI

from timestep import (
    MultiModelProvider,
    MultiModelProviderMap,
    OllamaModel,
    OllamaModelProvider,
    OpenAICompatibleProvider,
    run_agent,
    set_default_model_provider,
)
from timestep.errors import ModelNotConfiguredError, SettingsError
from timestep.models.compatible import NO_KEY
from timestep.models.model_chain import ModelChain
from timestep.models.multi_model import default_model_provider, is_default_of_the_sdk
from timestep.records import ModelServer
from timestep.settings import describe_settings, reset_settings, resolve_settings


class Named(ModelProvider):
    """A provider that notes what it is asked for."""

    def __init__(self) -> None:
        self.names: list[str | None] = []

    def get_model(self, model_name: str | None) -> Model:
        self.names.append(model_name)
        return ScriptedModel([ModelStep(output=[assistant_message(f"I am {model_name}")])])


def configure(monkeypatch: pytest.MonkeyPatch, **servers: Any) -> None:
    monkeypatch.setenv("TIMESTEP_MODEL_PROVIDERS", json.dumps(servers))
    reset_settings()


@pytest.fixture
def named() -> Named:
    return Named()


@pytest.fixture
def provider_map(named: Named) -> MultiModelProviderMap:
    found = MultiModelProviderMap()
    found.add_provider("local", named)
    return found


def test_a_map_keeps_providers_by_prefix(named: Named) -> None:
    found = MultiModelProviderMap()
    assert (found.has_prefix("local"), found.get_provider("local"), found.get_mapping()) == (False, None, {})
    found.add_provider("local", named)
    assert (found.has_prefix("local"), found.get_provider("local")) == (True, named)
    found.get_mapping().clear()
    assert found.get_mapping() == {"local": named}
    given = {"other": named}
    found.set_mapping(given)
    given.clear()
    assert found.get_mapping() == {"other": named}
    found.remove_provider("other")
    assert found.get_mapping() == {}
    with pytest.raises(KeyError):
        found.remove_provider("other")


@pytest.mark.parametrize("prefix", ["", "a/b", "a|b", " a"])
def test_what_cannot_begin_a_name_is_no_prefix(named: Named, prefix: str) -> None:
    with pytest.raises(ValueError, match="no prefix"):
        MultiModelProviderMap().add_provider(prefix, named)


@pytest.mark.parametrize(("name", "asked"), [("local/a", "a"), ("local/hf.co/name:tag", "hf.co/name:tag")])
def test_only_the_first_slash_splits(provider_map: MultiModelProviderMap, named: Named, name: str, asked: str) -> None:
    MultiModelProvider(provider_map).get_model(name)
    assert named.names == [asked]


@pytest.mark.parametrize("name", ["gpt-5.2", "openai/gpt-5.2", None])
def test_names_without_a_prefix_are_of_openai(name: str | None) -> None:
    found = MultiModelProvider(openai_api_key="k").get_model(name)
    assert isinstance(found, OpenAIResponsesModel)
    assert name is None or found.model == "gpt-5.2"


def test_openai_speaks_chat_completions_when_told_to() -> None:
    provider = MultiModelProvider(
        openai_api_key="k", openai_base_url="http://127.0.0.1:9/v1", openai_use_responses=False
    )
    found: Any = provider.get_model("gpt-5.2")
    assert isinstance(found, OpenAIChatCompletionsModel)
    assert str(found._client.base_url) == "http://127.0.0.1:9/v1/"


def test_with_a_client_the_other_options_of_openai_are_not_used() -> None:
    client = AsyncOpenAI(api_key="k")
    found: Any = MultiModelProvider(openai_client=client, openai_api_key="other").get_model("gpt-5.2")
    assert found._client is client


def test_ollama_needs_no_key_and_no_map() -> None:
    found = MultiModelProvider(openai_api_key="").get_model("ollama/hf.co/a/b:c")
    assert isinstance(found, OllamaModel)
    assert found.model == "hf.co/a/b:c"


def test_a_prefix_of_the_map_comes_before_the_built_in_one(provider_map: MultiModelProviderMap, named: Named) -> None:
    provider_map.add_provider("ollama", named)
    provider_map.add_provider("openai", named)
    for name in ("ollama/a", "openai/b"):
        MultiModelProvider(provider_map).get_model(name)
    assert named.names == ["a", "b"]


def test_an_unknown_prefix_lists_the_known_ones(provider_map: MultiModelProviderMap) -> None:
    with pytest.raises(ValueError, match=r"prefix 'nope' .* there are: local/, ollama/, openai/\."):
        MultiModelProvider(provider_map).get_model("nope/a")


def test_the_prefixes_of_the_sdk_are_left_to_it() -> None:
    with pytest.raises(ImportError):  # its package is an extra that is not installed here
        MultiModelProvider().get_model("litellm/openai/gpt-5.2")


@pytest.mark.parametrize("value", [None, "", " "])
def test_without_a_key_the_first_model_of_openai_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    provider = MultiModelProvider(openai_api_key="")
    provider.get_model("ollama/llama3")
    with pytest.raises(ModelNotConfiguredError, match="OPENAI_API_KEY"):
        provider.get_model("gpt-5.2")


@pytest.mark.parametrize(
    ("value", "url"),
    [(None, "https://api.openai.com/v1/"), ("", "https://api.openai.com/v1/"), (" http://x/v1 ", "http://x/v1/")],
)
def test_an_empty_address_of_the_environment_is_none(
    monkeypatch: pytest.MonkeyPatch, value: str | None, url: str
) -> None:
    if value is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", value)
    found: Any = MultiModelProvider(openai_api_key="k").get_model("gpt-5.2")
    assert str(found._client.base_url) == url


def test_a_key_of_the_environment_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    found: Any = MultiModelProvider().get_model("gpt-5.2")
    assert found._client.api_key == "k"


def test_several_names_are_a_fallback(provider_map: MultiModelProviderMap, named: Named) -> None:
    found = MultiModelProvider(provider_map).get_model("local/a | local/b")
    assert isinstance(found, ModelChain)
    assert [each.name for each in found.candidates()] == ["local/a", "local/b"]
    assert named.names == ["a", "b"]


async def test_servers_can_be_configured(monkeypatch: pytest.MonkeyPatch, server: OllamaServer) -> None:
    monkeypatch.setenv("GPU_KEY", "k")
    configure(
        monkeypatch,
        gpu={"base_url": server.url, "kind": "ollama", "api_key_env": "GPU_KEY"},
        local="http://127.0.0.1:9/v1",
    )
    server.script(answer("Hi"))
    await ask(MultiModelProvider().get_model("gpu/m"))
    assert server.requests[0].headers["authorization"] == "Bearer k"
    found: Any = MultiModelProvider().get_model("local/smollm2")
    assert (type(found).__mro__[1], found.model) == (OpenAIChatCompletionsModel, "smollm2")


def test_a_configured_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, local={"base_url": "http://127.0.0.1:9/v1", "api_key_env": "LOCAL_KEY"})
    with pytest.raises(ModelNotConfiguredError, match="LOCAL_KEY is not set"):
        MultiModelProvider().get_model("local/smollm2")


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"a/b": "http://x"}', '{"a": {"url": "http://x"}}', '{"a": "x"}',
                                  '{"a": {"base_url": "http://x", "kind": "other"}}', '{"a": 7}'])  # fmt: skip
def test_a_malformed_setting_says_what_to_write_and_shows_nothing_of_it(text: str) -> None:
    with pytest.raises(SettingsError, match="TIMESTEP_MODEL_PROVIDERS is malformed") as caught:
        resolve_settings(environ={"TIMESTEP_MODEL_PROVIDERS": text, "TIMESTEP_PROBE_LOCAL": "0"})
    assert "mapping" in caught.value.hint


def test_servers_of_the_configuration_file(tmp_path: Any) -> None:
    (tmp_path / "dbos-config.yaml").write_text(
        "name: app\ntimestep:\n  model_providers:\n    local:\n      base_url: ${BASE:-http://127.0.0.1:9/v1}\n"
        "      use_responses: true\n"
    )
    settings = resolve_settings(environ={"TIMESTEP_PROBE_LOCAL": "0"}, directory=tmp_path)
    assert settings.model_providers == {"local": ModelServer(base_url="http://127.0.0.1:9/v1", use_responses=True)}
    [shown] = [each for each in describe_settings(environ={"TIMESTEP_PROBE_LOCAL": "0"}, directory=tmp_path)
               if each.name == "TIMESTEP_MODEL_PROVIDERS"]  # fmt: skip
    assert shown.value == "local/ at http://127.0.0.1:9/v1"


@pytest.mark.parametrize("use_responses", [False, True])
def test_nothing_of_openai_s_environment_is_sent_to_another_server(
    monkeypatch: pytest.MonkeyPatch, use_responses: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project")
    provider = OpenAICompatibleProvider("http://127.0.0.1:9/v1", use_responses=use_responses)
    found: Any = provider.get_model("a/b")
    assert isinstance(found, OpenAIResponsesModel if use_responses else OpenAIChatCompletionsModel)
    assert found.model == "a/b"
    sent = {str(value) for value in found._client.default_headers.values()}
    assert found._client.api_key == NO_KEY
    assert not any(word in each for each in sent for word in ("of-openai", "org", "project"))


@pytest.mark.parametrize("url", ["", " ", "localhost:8080/v1", "ftp://lab/v1", "http://", "http:///v1"])
def test_a_compatible_server_has_an_address(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        OpenAICompatibleProvider(url)
    assert "http://localhost:8080/v1" in getattr(caught.value, "hint", "")


def test_a_compatible_server_has_no_default_model() -> None:
    with pytest.raises(ModelNotConfiguredError, match="no default model"):
        OpenAICompatibleProvider("http://127.0.0.1:9/v1").get_model(None)


SDK_PROVIDERS = {
    "bare": (MultiProvider(), True),
    "key": (MultiProvider(openai_api_key="k"), False),
    "address": (MultiProvider(openai_base_url="http://x"), False),
    "client": (MultiProvider(openai_client=AsyncOpenAI(api_key="k")), False),
    "map": (MultiProvider(provider_map=MultiProviderMap()), False),
    "prefixes": (MultiProvider(openai_prefix_mode="model_id"), False),
    "protocol": (MultiProvider(openai_use_responses=False), False),
    "ours": (MultiModelProvider(), False),
}


@pytest.mark.parametrize(("provider", "is_default"), SDK_PROVIDERS.values(), ids=SDK_PROVIDERS)
def test_only_the_bare_default_of_the_sdk_is_replaced(provider: ModelProvider, is_default: bool) -> None:
    assert is_default_of_the_sdk(provider) is is_default


@pytest.fixture
def default(named: Named) -> Iterator[Named]:
    set_default_model_provider(named)
    yield named
    set_default_model_provider(None)


async def test_a_plain_run_uses_the_default_provider(default: Named) -> None:
    result = await run_agent(Agent(name="a", model="x/y"), "Hi")
    assert (result.output, default.names) == ("I am x/y", ["x/y"])
    result = await run_agent(Agent(name="a", model="x"), "Hi", run_config=RunConfig(workflow_name="w"), stream=True)
    assert (result.output, default.names) == ("I am x", ["x/y", "x"])


async def test_a_run_s_own_provider_comes_before_the_default(default: Named) -> None:
    own = Named()
    await run_agent(Agent(name="a", model="x"), "Hi", run_config=RunConfig(model_provider=own))
    assert (own.names, default.names) == (["x"], [])


async def test_without_anything_a_name_of_ollama_goes_to_ollama(
    monkeypatch: pytest.MonkeyPatch, server: OllamaServer
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    server.script(answer("Hi"))
    assert (await run_agent(Agent(name="a", model="ollama/llama3"), "Hi")).output == "Hi"
    assert server.bodies[0]["model"] == "llama3"


def test_the_default_provider_looks_at_the_environment_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("one", "two"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        found: Any = default_model_provider().get_model("gpt-5.2")
        assert found._client.api_key == key


async def test_several_hosts_by_prefix(server: OllamaServer) -> None:
    other = OllamaServer()
    provider_map = MultiModelProviderMap()
    provider_map.add_provider("near", OllamaModelProvider(base_url=server.url))
    provider_map.add_provider("far", OllamaModelProvider(base_url=other.url))
    server.script(answer("near"))
    other.script(answer("far"))
    provider = MultiModelProvider(provider_map)
    try:
        texts = [
            (await stream(provider.get_model(f"{name}/m")))[-1].response.output[0].content[0].text
            for name in ("near", "far")
        ]
    finally:
        other.close()
    assert texts == ["near", "far"]
    await provider.aclose()
