"""A model of Ollama over HTTP: what is sent, what comes back, and what each fault is called."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import ollama
import pytest
from agents import AgentOutputSchema, ModelBehaviorError, ModelSettings, function_tool
from agents.retry import ModelRetryAdviceRequest
from model_calls import ask, stream
from ollama_server import END, READ, WRITTEN, Lines, OllamaServer, Refusal, Reply, answer, call, chunks
from pydantic import BaseModel

from timestep.errors import (
    IncompleteModelResponseError,
    ModelNotConfiguredError,
    ModelNotFoundError,
    ModelProviderError,
    ModelServerUnreachableError,
)
from timestep.models.failures import is_retryable
from timestep.models.ollama_model import OllamaModel
from timestep.models.ollama_provider import OllamaModelProvider

Output = Callable[..., Awaitable[list[Any]]]

HI = {"role": "assistant", "content": "Hi"}


class City(BaseModel):
    name: str


@function_tool
def go() -> str:
    """Go on."""
    return "gone"


def advice_on(model: OllamaModel, error: Exception) -> Any:
    return model.get_retry_advice(ModelRetryAdviceRequest(error=error, attempt=1, stream=False))


async def test_an_answer_is_one_request(model: OllamaModel, server: OllamaServer, output: Output) -> None:
    server.script(answer("Hello there", thinking="Hm", tool_calls=[call("go"), call("go")]))
    items = await output(model, tools=[go])
    assert [item.type for item in items] == ["reasoning", "message", "function_call", "function_call"]
    assert [request.path for request in server.requests] == ["/api/chat"]


async def test_the_tokens_are_counted(model: OllamaModel, server: OllamaServer) -> None:
    server.script(answer("Hi"), answer("", tool_calls=[call("go")]))
    usage = (await ask(model)).usage
    streamed = (await stream(model, tools=[go]))[-1].response.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (1, READ, WRITTEN)
    assert (streamed.input_tokens, streamed.output_tokens) == (READ, WRITTEN)


async def test_the_provider_s_own_count_is_kept_when_it_is_asked_for(model: OllamaModel, server: OllamaServer) -> None:
    server.script(answer("Hi"), answer("Hi"))
    assert (await ask(model, model_settings=ModelSettings(preserve_raw_usage=True))).raw_usage == {
        "prompt_eval_count": READ,
        "eval_count": WRITTEN,
    }
    assert (await ask(model)).raw_usage is None


async def test_a_stream_does_not_keep_it_and_says_so(
    model: OllamaModel, server: OllamaServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(answer("Hi"))
    await stream(model, model_settings=ModelSettings(preserve_raw_usage=True))
    assert "preserve_raw_usage of a stream" in caplog.text


async def test_headers_and_query_of_the_settings_are_sent(model: OllamaModel, server: OllamaServer) -> None:
    server.script(answer("Hi"))
    await ask(model, model_settings=ModelSettings(extra_headers={"x-team": "a"}, extra_query={"trace": "1"}))
    [request] = server.requests
    assert (request.headers["x-team"], request.path) == ("a", "/api/chat?trace=1")


async def test_an_image_is_sent_as_its_data(model: OllamaModel, server: OllamaServer, output: Output) -> None:
    server.script(answer("A boat"))
    content = [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}]
    await output(model, [{"role": "user", "content": content}])
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "?", "images": ["QUJD"]}]


@pytest.mark.parametrize("text", ["half \ud800 pair", "line\u2028end\u0085", '"quoted"\n'])
async def test_any_text_arrives(model: OllamaModel, server: OllamaServer, text: str) -> None:
    server.script(answer("Hi"))
    await ask(model, text)
    assert server.bodies[0]["messages"][0]["content"] == text


@pytest.mark.parametrize("text", ["a\u0085b", "a\u2028b", "a\x1eb"])
async def test_a_line_of_a_stream_ends_at_its_line_feed_alone(
    model: OllamaModel, server: OllamaServer, text: str
) -> None:
    server.script(answer(text))
    assert (await stream(model))[-1].response.output[0].content[0].text == text


async def test_what_ollama_cannot_honour_is_warned_of_once(
    model: OllamaModel, server: OllamaServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(answer("Hi"), answer("Hi"))
    for _ in range(2):
        await ask(model, model_settings=ModelSettings(verbosity="low"), previous_response_id="resp_1")
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "Ollama has no way to honour verbosity; m is called without it.",
        "Ollama has no way to honour previous_response_id; m is called without it.",
    ]


async def test_a_call_that_has_to_come_and_does_not_is_misbehaviour(
    model: OllamaModel, server: OllamaServer, output: Output
) -> None:
    server.script(answer("No"), answer("", tool_calls=[call("go")]))
    settings = ModelSettings(tool_choice="required")
    with pytest.raises(ModelBehaviorError, match="told to call a tool"):
        await output(model, tools=[go], model_settings=settings)
    assert [item.name for item in await output(model, tools=[go], model_settings=settings)] == ["go"]


async def test_beside_tools_an_output_that_does_not_fit_is_asked_for_once_more(
    model: OllamaModel, server: OllamaServer, output: Output
) -> None:
    server.script(answer("It is Oslo"), answer('{"name": "Oslo"}'))
    [item] = await output(model, tools=[go], output_schema=AgentOutputSchema(City))
    assert item.content[0].text == '{"name": "Oslo"}'
    assert ["format" in body for body in server.bodies] == [False, True]
    assert ["tools" in body for body in server.bodies] == [True, False]


async def test_beside_tools_an_output_that_fits_and_a_call_are_taken(
    model: OllamaModel, server: OllamaServer, output: Output
) -> None:
    server.script(answer("", tool_calls=[call("go")]), answer('{"name": "Oslo"}'))
    for kind in ("function_call", "message"):
        [item] = await output(model, tools=[go], output_schema=AgentOutputSchema(City))
        assert item.type == kind


REFUSALS = [(400, False), (401, False), (403, False), (404, False), (408, True), (409, True), (413, False),
            (418, False), (429, True), (500, True), (502, True), (503, True), (504, True), (529, True)]  # fmt: skip


@pytest.mark.parametrize("error", ["refused", {"message": "refused"}, "", b"<html>refused"])
@pytest.mark.parametrize(("status", "retryable"), REFUSALS)
async def test_a_refusal_says_whether_it_may_pass(
    model: OllamaModel, server: OllamaServer, output: Output, status: int, retryable: bool, error: Any
) -> None:
    server.script(Refusal(status=status, error=error))
    with pytest.raises(ModelProviderError) as caught:
        await output(model)
    found = caught.value
    assert (found.status_code, found.retryable, is_retryable(found)) == (status, retryable, retryable)
    assert advice_on(model, found).suggested is retryable
    assert str(status) in str(found)


@pytest.mark.parametrize(("header", "least", "most"), [
    ("3", 3, 3), ("0.5", 0.5, 0.5), ("-1", 0, 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("soon", None, None),
    ("Wed, 21 Oct 2099 07:28:00 GMT", 1e6, 1e10),
])  # fmt: skip
async def test_the_wait_that_a_server_asks_for_is_passed_on(
    model: OllamaModel, server: OllamaServer, header: str, least: float | None, most: float | None
) -> None:
    server.script(Refusal(status=429, headers={"retry-after": header}))
    with pytest.raises(ModelProviderError) as caught:
        await ask(model)
    found = advice_on(model, caught.value).retry_after
    assert found is None if least is None or most is None else least <= found <= most


async def test_a_model_that_is_not_pulled_says_how_it_is(
    model: OllamaModel, server: OllamaServer, output: Output
) -> None:
    server.script(Refusal(status=404, error="model 'm' not found, try pulling it first"))
    with pytest.raises(ModelNotFoundError) as caught:
        await output(model)
    assert "`ollama pull m`" in caught.value.hint
    assert not caught.value.retryable


async def test_an_address_that_is_no_ollama_says_so(model: OllamaModel, server: OllamaServer) -> None:
    server.script(Refusal(status=404, error=b"404 page not found"))
    with pytest.raises(ModelProviderError) as caught:
        await ask(model)
    assert type(caught.value) is ModelProviderError
    assert "Is this an Ollama server?" in caught.value.hint


async def test_no_server_says_where_none_is(output: Output) -> None:
    gone = OllamaServer()
    gone.close()
    with pytest.raises(ModelServerUnreachableError, match=gone.url) as caught:
        await output(OllamaModelProvider(base_url=gone.url).get_model("m"))
    assert "ollama serve" in caught.value.hint
    assert caught.value.retryable


BROKEN: dict[str, Reply] = {
    "ends early": Lines(lines=chunks(answer("One two"))[:-1]),
    "ends at once": Lines(lines=[]),
    "disconnects": Lines(lines=chunks(answer("One two"))[:1], end="disconnects"),
    "malformed": Lines(lines=[*chunks(answer("One two"))[:1], '{"message": {"cont']),
    "no object": Lines(lines=["7"]),
    "a page": Lines(lines=["<html>", "</html>"]),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
async def test_a_stream_that_breaks_is_no_answer(model: OllamaModel, server: OllamaServer, reply: Reply) -> None:
    server.script(reply)
    with pytest.raises(IncompleteModelResponseError) as caught:
        await stream(model)
    assert caught.value.retryable
    assert advice_on(model, caught.value).suggested


@pytest.mark.parametrize("reply", [
    Lines(lines=['{"message": {"cont'], end="disconnects"),
    Lines(lines=['{"message": {"cont']),
    Lines(lines=[{"message": HI, "done": False}]),
    Lines(lines=[{"status": "I am no Ollama server"}]),
])  # fmt: skip
async def test_a_whole_answer_that_breaks_is_no_answer(model: OllamaModel, server: OllamaServer, reply: Reply) -> None:
    server.script(reply)
    with pytest.raises(IncompleteModelResponseError):
        await ask(model)


@pytest.mark.parametrize("error", ["the runner crashed", {"message": "the runner crashed"}])
async def test_an_error_in_mid_stream_is_one(model: OllamaModel, server: OllamaServer, error: Any) -> None:
    server.script(Lines(lines=[{"message": HI, "done": False}, {"error": error}]))
    with pytest.raises(ModelProviderError, match="the runner crashed") as caught:
        await stream(model)
    assert caught.value.retryable


async def test_blank_lines_and_what_follows_the_end_are_nothing(model: OllamaModel, server: OllamaServer) -> None:
    server.script(Lines(lines=["", {"message": HI, "done": False}, "", {"message": {}, **END}, "<html>"]))
    assert (await stream(model))[-1].response.output[0].content[0].text == "Hi"


async def test_a_model_with_a_client_of_the_caller_s_own(
    server: OllamaServer, output: Output, client_of: Callable[[str], ollama.AsyncClient]
) -> None:
    server.script(answer("Hi"))
    async with client_of(server.url) as client:
        [item] = await output(OllamaModel("m", client), "Hi")
    assert item.content[0].text == "Hi"


async def test_what_is_no_client_is_refused(output: Output) -> None:
    with pytest.raises(ModelNotConfiguredError, match=r"not an ollama\.AsyncClient"):
        await output(OllamaModel("m", object()))
