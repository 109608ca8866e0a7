"""What an agent asks for, as the body of a request: every setting is honoured, told of, or refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from agents import Agent, AgentOutputSchema, ModelSettings, UserError, WebSearchTool, function_tool, handoff
from agents.model_settings import MCPToolChoice
from openai.types.shared import Reasoning
from pydantic import BaseModel

from timestep.models.ollama_body import Body, body_of

Json = dict[str, Any]


class City(BaseModel):
    name: str


class Place(BaseModel):
    city: City
    note: str | None = None


@function_tool(strict_mode=False)
def look(place: Place, times: int | None = None) -> str:
    """Look at a place."""
    return f"{place} {times}"


@function_tool
def go() -> str:
    """Go on."""
    return "gone"


def body(settings: ModelSettings | None = None, **given: Any) -> Body:
    plain: Json = {"system_instructions": None, "items": "Hi", "tools": [], "handoffs": [], "output_schema": None}
    return body_of("m", settings=settings or ModelSettings(), **plain | given)


def names(found: Body) -> list[str]:
    return [tool["function"]["name"] for tool in found.fields.get("tools", ())]


def test_a_bare_call_says_nothing_but_model_and_messages() -> None:
    assert body().fields == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_the_settings_become_options() -> None:
    settings = ModelSettings(
        temperature=0.0, top_p=0.9, frequency_penalty=0.1, presence_penalty=0.2, max_tokens=50,
        extra_args={"stop": ["END"], "seed": 7, "num_ctx": 8192, "keep_alive": "5m", "options": {"top_k": 3}},
    )  # fmt: skip
    assert body(settings).fields == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "keep_alive": "5m",
        "options": {
            "temperature": 0.0, "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.2, "num_predict": 50,
            "stop": ["END"], "seed": 7, "num_ctx": 8192, "top_k": 3,
        },
    }  # fmt: skip


def test_one_text_to_stop_at_is_enough() -> None:
    assert body(ModelSettings(extra_args={"stop": "END"})).fields["options"] == {"stop": ["END"]}


def test_an_extra_body_is_taken_as_it_is() -> None:
    found = body(ModelSettings(temperature=1, extra_body={"options": {"seed": 1}, "keep_alive": 0}))
    assert found.fields["options"] == {"temperature": 1, "seed": 1}
    assert found.fields["keep_alive"] == 0


def test_probabilities_are_asked_for() -> None:
    fields = body(ModelSettings(top_logprobs=2)).fields
    assert (fields["logprobs"], fields["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), (None, False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"),
     ("xhigh", "high")],
)  # fmt: skip
def test_the_reasoning_effort_becomes_think(effort: Any, think: Any) -> None:
    assert body(ModelSettings(reasoning=Reasoning(effort=effort))).fields["think"] == think


@pytest.mark.parametrize("settings", [ModelSettings(), ModelSettings(reasoning=Reasoning(summary="auto"))])
def test_without_an_effort_thinking_is_left_to_the_model(settings: ModelSettings) -> None:
    assert "think" not in body(settings).fields


def test_every_setting_is_an_option_or_told_of_or_at_home_elsewhere() -> None:
    elsewhere = {
        "retry",
        "timeout",
        "include_usage",
        "preserve_raw_usage",
        "extra_headers",
        "extra_query",
        "tool_choice",
    }
    given: Json = {
        "temperature": 1.0, "top_p": 1.0, "frequency_penalty": 1.0, "presence_penalty": 1.0, "max_tokens": 5,
        "parallel_tool_calls": False, "truncation": "auto", "reasoning": Reasoning(effort="low", summary="auto"),
        "verbosity": "low", "metadata": {"a": "b"}, "store": True, "prompt_cache_retention": "24h",
        "response_include": ["x"], "top_logprobs": 1, "extra_body": {"a": 1}, "extra_args": {"seed": 1},
        "context_management": [{"type": "compaction"}], "prompt_cache_options": {"mode": "explicit"},
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(ModelSettings)} == given.keys() | elsewhere
    bare = body()
    for name, value in given.items():
        found = body(ModelSettings(**{name: value}))
        assert found.fields != bare.fields or found.ignored, name


def test_the_schema_of_a_tool_is_sent_whole() -> None:
    [tool] = body(tools=[look]).fields["tools"]
    assert tool["function"]["parameters"] == look.params_json_schema
    assert "$defs" in tool["function"]["parameters"]


def test_handoffs_are_tools() -> None:
    assert names(body(tools=[go], handoffs=[handoff(Agent(name="other"))])) == ["go", "transfer_to_other"]


@pytest.mark.parametrize(
    ("choice", "offered", "must"),
    [(None, ["look", "go"], []), ("auto", ["look", "go"], []), ("none", [], []), ("go", ["go"], ["go"]),
     ("required", ["look", "go"], ["go", "look"])],
)  # fmt: skip
def test_the_tool_choice_says_what_is_offered_and_what_has_to_come(choice: Any, offered: Any, must: Any) -> None:
    found = body(ModelSettings(tool_choice=choice), tools=[look, go])
    assert names(found) == offered
    assert sorted(found.must_call) == must
    told = [each["content"] for each in found.fields["messages"] if each["role"] == "system"]
    assert told == ([f"Answer by calling a tool: {' or '.join(must)}."] if must else [])


@pytest.mark.parametrize(
    ("choice", "tools"),
    [("other", [go]), ("other", []), ("required", []), (MCPToolChoice(server_label="s", name="t"), [go])],
)
def test_a_tool_choice_that_cannot_be_honoured_is_refused(choice: Any, tools: list[Any]) -> None:
    with pytest.raises(UserError):
        body(ModelSettings(tool_choice=choice), tools=tools)


def test_a_hosted_tool_is_refused() -> None:
    with pytest.raises(UserError, match="web_search"):
        body(tools=[WebSearchTool()])


def test_a_structured_output_is_held_by_format() -> None:
    schema = AgentOutputSchema(City)
    assert body(output_schema=schema).fields["format"] == schema.json_schema()


def test_beside_tools_the_schema_stands_in_the_instructions_because_format_would_keep_tools_from_being_called() -> None:
    schema = AgentOutputSchema(City)
    found = body(output_schema=schema, tools=[go], system_instructions="Be brief")
    assert "format" not in found.fields
    assert [each["role"] for each in found.fields["messages"]] == ["system", "system", "user"]
    assert '"name"' in found.fields["messages"][1]["content"]
    assert found.with_format()["format"] == schema.json_schema()
    assert "tools" not in found.with_format()


def test_a_plain_text_schema_is_none() -> None:
    assert "format" not in body(output_schema=AgentOutputSchema(str)).fields
