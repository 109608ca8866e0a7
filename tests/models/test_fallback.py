"""A model that has others to fall back on, in a plain run: who answers, and after which failure."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from agents import Agent, AgentOutputSchema, Model, ModelBehaviorError, ModelProvider, UserError, function_tool
from agents.retry import ModelRetryAdviceRequest
from agents.testing import ModelStep, ScriptedModel, assistant_message
from model_calls import ask, stream
from ollama_server import Lines, OllamaServer, Refusal, Reply, answer, call, chunks
from pydantic import BaseModel

from timestep import FallbackModel, OllamaModelProvider, run_agent, set_default_model_provider
from timestep.errors import IncompleteModelResponseError, ModelNotConfiguredError, ModelProviderError
from timestep.models.failures import is_retryable
from timestep.models.ollama_model import OllamaModel


class City(BaseModel):
    name: str


@function_tool
def go() -> str:
    """Go on."""
    return "gone"


def spare(text: str = "spare") -> ScriptedModel:
    return ScriptedModel([ModelStep(output=[assistant_message(text)])])


def text_of(output: list[Any]) -> str:
    return output[-1].content[0].text


FALLS = {
    "500": Refusal(status=500),
    "429": Refusal(status=429),
    "cut": Lines(lines=[]),
    "misbehaves": answer("", end={"done": True, "done_reason": "length"}),
}


@pytest.mark.parametrize("reply", FALLS.values(), ids=FALLS)
async def test_the_next_one_answers(model: OllamaModel, server: OllamaServer, output: Any, reply: Reply) -> None:
    server.script(reply)
    assert text_of(await output(FallbackModel(model, spare()))) == "spare"


async def test_nobody_else_is_asked_when_the_first_answers(
    model: OllamaModel, server: OllamaServer, output: Any
) -> None:
    server.script(answer("first"))
    assert text_of(await output(FallbackModel(model, ScriptedModel()))) == "first"


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_a_refusal_that_stays_one_is_the_caller_s(
    model: OllamaModel, server: OllamaServer, output: Any, status: int
) -> None:
    server.script(Refusal(status=status))
    with pytest.raises(ModelProviderError):
        await output(FallbackModel(model, spare()))


async def test_the_last_one_s_failure_is_the_caller_s(model: OllamaModel, server: OllamaServer, output: Any) -> None:
    server.script(Refusal(status=500), Refusal(status=503))
    with pytest.raises(ModelProviderError) as caught:
        await output(FallbackModel(model, model))
    assert caught.value.status_code == 503


async def test_the_errors_to_fall_back_on_can_be_named(model: OllamaModel, server: OllamaServer, output: Any) -> None:
    server.script(Refusal(status=401), Refusal(status=500))
    assert text_of(await output(FallbackModel(model, spare(), on=(ModelProviderError,)))) == "spare"
    with pytest.raises(ModelProviderError):
        await output(FallbackModel(model, spare(), on=(UserError,)))


async def test_a_tool_that_there_is_not_and_an_output_that_does_not_fit_are_misbehaviour(
    model: OllamaModel, server: OllamaServer
) -> None:
    server.script(answer(tool_calls=[call("fly")]), answer("no JSON"))
    assert text_of((await ask(FallbackModel(model, spare()), tools=[go])).output) == "spare"
    found = await ask(FallbackModel(model, spare('{"name": "Oslo"}')), output_schema=AgentOutputSchema(City))
    assert text_of(found.output) == '{"name": "Oslo"}'


async def test_good_calls_and_fitting_outputs_are_taken(model: OllamaModel, server: OllamaServer) -> None:
    server.script(answer(tool_calls=[call("go")]), answer('{"name": "Oslo"}'))
    found = FallbackModel(model, spare())
    assert (await ask(found, tools=[go])).output[0].type == "function_call"
    assert text_of((await ask(found, output_schema=AgentOutputSchema(City))).output) == '{"name": "Oslo"}'


async def test_what_was_seen_of_a_stream_is_not_taken_back(model: OllamaModel, server: OllamaServer) -> None:
    server.script(Lines(lines=chunks(answer("One two"))[:1]))
    with pytest.raises(IncompleteModelResponseError):
        await stream(FallbackModel(model, spare()))


async def test_three_models_and_the_names_of_the_default_provider(server: OllamaServer) -> None:
    class Named(ModelProvider):
        def get_model(self, model_name: str | None) -> Model:
            return OllamaModelProvider(base_url=server.url).get_model(model_name)

    set_default_model_provider(Named())
    server.script(Refusal(status=500), Refusal(status=500), answer("third"))
    result = await run_agent(Agent(name="a", model=FallbackModel("a", "b", "c")), "Hi")
    assert result.output == "third"
    assert [body["model"] for body in server.bodies] == ["a", "b", "c"]


def test_a_fallback_has_two_models_or_more() -> None:
    for names in ([], ["a"], ["a", ""]):
        with pytest.raises(ModelNotConfiguredError, match="two models"):
            FallbackModel(*names)


def test_its_name_names_all() -> None:
    assert FallbackModel("a", OllamaModelProvider().get_model("b")).model == "a|b"


def test_its_advice_is_that_of_the_model_that_knows_the_error(model: OllamaModel) -> None:
    request = ModelRetryAdviceRequest(error=ModelProviderError(retryable=True), attempt=1, stream=False)
    found = FallbackModel(spare(), model).get_retry_advice(request)
    assert found is not None
    assert found.suggested
    assert FallbackModel("gpt-5.2", model).get_retry_advice(request) == found  # there is no key for the first
    request.error = ValueError()
    assert FallbackModel(spare(), model).get_retry_advice(request) is None


async def test_closing_closes_what_was_given() -> None:
    closed: list[str] = []

    class Closing(ScriptedModel):
        async def close(self) -> None:
            closed.append("closed")

    await FallbackModel("a", Closing()).close()
    assert closed == ["closed"]


def status_error(status: int) -> openai.APIStatusError:
    request = httpx2.Request("POST", "http://x")
    return openai.APIStatusError("no", response=httpx2.Response(status, request=request), body=None)


RETRYABLE = [
    (status_error(429), True), (status_error(500), True), (status_error(400), False), (ConnectionError(), True),
    (TimeoutError(), True), (ValueError(), False), (ModelBehaviorError("no"), False), (UserError("no"), False),
    (IncompleteModelResponseError(), True),
    (openai.APIConnectionError(request=httpx2.Request("POST", "http://x")), True),
]  # fmt: skip


@pytest.mark.parametrize(("error", "retryable"), RETRYABLE, ids=lambda value: repr(value)[:40])
def test_which_failures_may_pass(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable
