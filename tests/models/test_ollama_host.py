"""`OLLAMA_HOST` as people write it: with and without scheme and port, and at every address of this machine."""

from __future__ import annotations

import pytest
from model_calls import ask
from ollama_server import OllamaServer, answer

from timestep import OllamaModelProvider
from timestep.errors import ModelNotConfiguredError
from timestep.models.ollama_host import local_url

WRITTEN = [
    ("gpu-1", "http://gpu-1:11434"),
    ("gpu-1:8080", "http://gpu-1:8080"),
    ("http://gpu-1", "http://gpu-1:80"),
    ("http://gpu-1:8080/", "http://gpu-1:8080"),
    ("HTTPS://gpu-1", "https://gpu-1:443"),
    ("https://gpu-1/ollama/", "https://gpu-1:443/ollama"),
    ("gpu-1/ollama", "http://gpu-1:11434/ollama"),
    ("10.0.0.7", "http://10.0.0.7:11434"),
    ("0.0.0.0", "http://127.0.0.1:11434"),
    ("0.0.0.0:8080", "http://127.0.0.1:8080"),
    ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
    (":8080", "http://127.0.0.1:8080"),
    ("[::]:8080", "http://[::1]:8080"),
    ("::", "http://[::1]:11434"),
    ("[fe80::7]", "http://[fe80::7]:11434"),
    (' "gpu-1" ', "http://gpu-1:11434"),
]


@pytest.mark.parametrize(("written", "url"), WRITTEN)
def test_the_address_is_read_as_the_programs_of_ollama_read_it(written: str, url: str) -> None:
    assert local_url(environ={"OLLAMA_HOST": written}) == (url, "OLLAMA_HOST")


@pytest.mark.parametrize("written", ["", " ", '""'])
def test_an_empty_one_counts_as_absent(written: str) -> None:
    assert local_url(environ={"OLLAMA_HOST": written}) == ("http://localhost:11434", "default")


@pytest.mark.parametrize("written", ["ftp://gpu-1", "gpu 1", "gpu-1:port", "gpu-1:70000", "http://[gpu"])
def test_what_is_no_address_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", written)
    with pytest.raises(ModelNotConfiguredError, match="OLLAMA_HOST is") as raised:
        OllamaModelProvider().get_model("llama3")
    assert raised.value.hint == "Write it as gpu-1, gpu-1:11434 or http://gpu-1:11434."


async def test_a_model_is_asked_there_and_the_key_of_the_environment_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, server: OllamaServer
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.url.removeprefix("http://").replace("127.0.0.1", "0.0.0.0"))
    server.script(answer("Hi"))
    model = OllamaModelProvider().get_model("llama3")
    monkeypatch.setenv("OLLAMA_API_KEY", "of-the-environment")
    await ask(model)
    assert ["authorization" in request.headers for request in server.requests] == [False]
