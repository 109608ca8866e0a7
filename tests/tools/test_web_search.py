"""`web_search` through the real client of Firecrawl, which is called on loopback."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner
from agents.testing import ScriptedModel, assistant_message, function_call
from firecrawl_server import FirecrawlServer

from timestep import TimestepError, web_search
from timestep.errors import ApiKeyMissingError, InvalidInputError, UnsupportedError
from timestep.tools import web_search as module

KEY = "fc-secret"


@pytest.fixture
def server() -> Iterator[FirecrawlServer]:
    server = FirecrawlServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch, server: FirecrawlServer) -> None:
    monkeypatch.setenv("FIRECRAWL_API_KEY", KEY)
    monkeypatch.setenv("FIRECRAWL_API_URL", server.url)


async def ask_agent(arguments: Any) -> str:
    """Return what an agent's model is told after it has called the tool with these arguments."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    model = ScriptedModel([[function_call("web_search", text, call_id="c1")], [assistant_message("done")]])
    agent = Agent(name="assistant", model=model, tools=[web_search])
    result = await Runner.run(agent, "Search", run_config=RunConfig(tracing_disabled=True))
    [output] = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
    return output


async def test_results_are_numbered_with_title_url_and_description(server: FirecrawlServer) -> None:
    text = await web_search("tides", search_context_size="low")
    assert text.startswith("1. Tides 1\n   URL: https://tides.example/1\n   About the tides, part 1.\n\n2. Tides 2\n")
    assert text.count("   URL: ") == 5
    [request] = server.requests
    assert (request.path, request.authorization) == ("/v2/search", f"Bearer {KEY}")
    assert request.body["query"] == "tides"


@pytest.mark.parametrize(("size", "count"), [("low", 5), ("medium", 10), ("high", 20)])
async def test_the_context_size_is_a_number_of_results(server: FirecrawlServer, size: Any, count: int) -> None:
    assert (await web_search("tides", search_context_size=size)).count("   URL: ") == count
    assert server.requests[0].body["limit"] == count


async def test_location_and_domains_are_sent_as_firecrawl_takes_them(server: FirecrawlServer) -> None:
    await web_search(
        "tides",
        {"city": "Ostend", "region": None, "country": "be"},
        {"allowed_domains": ["docs.example.com", " https://tides.example/a?b "]},
    )
    await web_search("tides", {"country": "Belgium"}, {"allowed_domains": []})
    first, second = (request.body for request in server.requests)
    assert (first["location"], first["country"]) == ("Ostend,be", "BE")
    assert first["includeDomains"] == ["docs.example.com", "tides.example"]
    assert (second["location"], second["limit"]) == ("Belgium", 10)
    assert not {"country", "includeDomains"} & set(second)


async def test_what_results_lack_is_left_out(server: FirecrawlServer) -> None:
    server.found = [
        {"url": "https://a.example"},
        {"url": "https://b.example", "title": None, "description": ""},
        {"markdown": "# C", "metadata": {"title": "C", "url": "https://c.example", "description": "a document"}},
    ]
    text = await web_search("tides")
    assert text.splitlines() == [
        "1. No title", "   URL: https://a.example", "",
        "2. No title", "   URL: https://b.example", "",
        "3. C", "   URL: https://c.example", "   a document",
    ]  # fmt: skip
    server.found = []
    assert await web_search("tides") == "No search results found."


FAILURES = [
    (400, "refused the request", "BadRequestError"),
    (401, "refused the key", "UnauthorizedError"),
    (402, "quota", "PaymentRequiredError"),
    (408, "in time", "RequestTimeoutError"),
    (429, "search again later", "RateLimitError"),
    (500, "failed", "InternalServerError"),
    (503, "failed", "FirecrawlError"),
]


@pytest.mark.parametrize(("status", "told", "logged"), FAILURES, ids=[str(status) for status, *_ in FAILURES])
@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "agent"])
async def test_a_refusal_is_told_and_the_log_says_why(
    server: FirecrawlServer, caplog: pytest.LogCaptureFixture, status: int, told: str, logged: str, is_direct: bool
) -> None:
    server.statuses = [status]
    with caplog.at_level(logging.WARNING, logger="timestep"):
        text = await (web_search("tides") if is_direct else ask_agent({"query": "tides"}))
    assert text.startswith("Error performing web search: ")
    assert told in text
    assert logged in caplog.text
    assert KEY not in caplog.text + text
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "told"), [(0, "cannot be reached"), (-1, "did not answer in time"), (502, "failed")]
)
async def test_a_fault_on_the_way_is_tried_again_and_then_told(
    server: FirecrawlServer, monkeypatch: pytest.MonkeyPatch, status: int, told: str
) -> None:
    if status == -1:
        monkeypatch.setattr(module, "ATTEMPT_SECONDS", 0.5)
    server.statuses = [status, status]
    assert told in await ask_agent({"query": "tides"})
    assert len(server.requests) == 2
    monkeypatch.setattr(module, "ATTEMPT_SECONDS", 30.0)
    server.statuses = [502]
    assert "1. Tides 1" in await web_search("tides")


async def test_nobody_listening_is_told(monkeypatch: pytest.MonkeyPatch, server: FirecrawlServer) -> None:
    server.close()
    assert "cannot be reached" in await ask_agent({"query": "tides"})


@pytest.mark.parametrize("answer", ["<html>", '{"success": true, "data": {"web": [{"title": 7}]}}'])
async def test_an_answer_that_cannot_be_read_is_told(server: FirecrawlServer, answer: str) -> None:
    server.text = answer
    assert "cannot be read" in await web_search("tides")


@pytest.mark.parametrize("key", [None, "", " "])
async def test_without_a_key_a_caller_gets_a_value_error_and_a_model_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, key: str | None, server: FirecrawlServer
) -> None:
    if key is None:
        monkeypatch.delenv("FIRECRAWL_API_KEY")
    else:
        monkeypatch.setenv("FIRECRAWL_API_KEY", key)
    with pytest.raises(ValueError, match="FIRECRAWL_API_KEY") as raised:
        await web_search("tides")
    assert isinstance(raised.value, (TimestepError, ApiKeyMissingError))
    with caplog.at_level(logging.WARNING, logger="timestep"):
        assert "not set up" in await ask_agent({"query": "tides"})
    assert "FIRECRAWL_API_KEY is not set" in caplog.text
    assert server.requests == []


async def test_without_the_client_a_caller_gets_an_error_and_a_model_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(module.importlib, "import_module", absent)
    with pytest.raises(UnsupportedError) as raised:
        await web_search("tides")
    assert "timestep[search]" in raised.value.hint
    with caplog.at_level(logging.WARNING, logger="timestep"):
        assert "not set up" in await ask_agent({"query": "tides"})
    assert "timestep[search]" in caplog.text


async def test_bad_arguments_are_refused(server: FirecrawlServer) -> None:
    assert "the query is empty" in await web_search("  ")
    with pytest.raises(InvalidInputError, match="huge"):
        await web_search("tides", search_context_size="huge")  # type: ignore[arg-type] - refused on purpose
    assert "error" in await ask_agent({"query": "tides", "search_context_size": "huge"})
    assert server.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "tides"},
        {"query": "tides", "user_location": None, "filters": None},
        {"query": "tides", "user_location": {"city": "Ostend", "timezone": "CET", "type": "approximate"}},
        {"query": "tides", "filters": {"allowed_domains": None}, "search_context_size": "medium"},
    ],
)
async def test_an_agent_leaves_out_what_it_likes(server: FirecrawlServer, arguments: Any) -> None:
    assert (await ask_agent(arguments)).count("   URL: ") == 10


def test_the_schema_asks_for_the_query_alone_and_has_the_parameters_of_the_call() -> None:
    schema = web_search.params_json_schema
    assert (schema["required"], web_search.strict_json_schema) == (["query"], False)
    assert list(schema["properties"]) == list(inspect.signature(web_search).parameters)
    assert "null" not in json.dumps(schema)


def test_importing_the_tool_does_not_import_the_client() -> None:
    program = "import sys, timestep; timestep.web_search; assert 'firecrawl' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
