"""An answer of Ollama as output items, whole and in chunks: the same items either way."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from agents import ModelBehaviorError
from agents.usage import Usage
from hypothesis import given
from hypothesis import strategies as st
from ollama_server import answer, call, chunks

from timestep.models.from_ollama import items_of, new_id, usage_of
from timestep.models.ollama_stream import StreamedAnswer

Json = dict[str, Any]

KINDS: dict[str, tuple[Json, list[tuple[str, Any]]]] = {
    "text": (answer("Hello there"), [("message", "Hello there")]),
    "nothing": (answer(""), [("message", "")]),
    "thinking": (answer("Hi", thinking="Hm"), [("reasoning", "Hm"), ("message", "Hi")]),
    "a call": (answer(tool_calls=[call("look", at=1)]), [("function_call", ("look", {"at": 1}))]),
    "several calls": (
        answer(tool_calls=[call("look", at=1), call("look", at=2), call("go")]),
        [("function_call", ("look", {"at": 1})), ("function_call", ("look", {"at": 2})), ("function_call", ("go", {}))],
    ),
    "all of them": (
        answer("Wait", thinking="Hm", tool_calls=[call("look", at="ø")]),
        [("reasoning", "Hm"), ("message", "Wait"), ("function_call", ("look", {"at": "ø"}))],
    ),
    "arguments in a text": (
        answer(tool_calls=[{"function": {"name": "look", "arguments": '{"at": 1}'}}]),
        [("function_call", ("look", {"at": 1}))],
    ),
    "thinking alone": (answer("", thinking="Hm"), [("reasoning", "Hm"), ("message", "")]),
}


def kinds_of(items: list[Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for item in items:
        if item.type in ("message", "reasoning"):
            found.append((item.type, item.content[0].text))
        else:
            found.append((item.type, (item.name, json.loads(item.arguments))))
    return found


def streamed(whole: Json) -> tuple[list[Any], list[Any]]:
    """Return the events and the items of an answer in chunks."""
    found = StreamedAnswer(model="m")
    events = list(found.begin())
    for chunk in chunks(whole):
        events += found.take(chunk)
    events += found.end(usage_of(found.whole))
    return events, events[-1].response.output


@pytest.mark.parametrize(("whole", "kinds"), KINDS.values(), ids=KINDS)
def test_an_answer_becomes_these_items(whole: Json, kinds: list[tuple[str, Any]]) -> None:
    items = items_of(whole, model="m")
    assert kinds_of(items) == kinds
    assert len({item.id for item in items}) == len(items)
    calls = [item for item in items if item.type == "function_call"]
    assert len({item.call_id for item in calls}) == len(calls)
    assert all(item.call_id.startswith("call_") and len(item.call_id) == 29 for item in calls)


@pytest.mark.parametrize(("whole", "kinds"), KINDS.values(), ids=KINDS)
def test_an_answer_in_chunks_has_the_same_items(whole: Json, kinds: list[tuple[str, Any]]) -> None:
    events, items = streamed(whole)
    assert kinds_of(items) == kinds
    check_events(events, items)


def check_events(events: list[Any], items: list[Any]) -> None:
    """Assert that the events are those of one answer: numbered, each item added, spelt out and done once."""
    assert [event.type for event in (events[0], events[-1])] == ["response.created", "response.completed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    added = [event for event in events if event.type == "response.output_item.added"]
    done = [event for event in events if event.type == "response.output_item.done"]
    assert [event.item.id for event in sorted(added, key=lambda event: event.output_index)] == [
        each.id for each in items
    ]
    assert {event.output_index: event.item for event in done} == dict(enumerate(items))
    for place, item in enumerate(items):
        deltas = [event.delta for event in events if event.type.endswith(".delta") and event.output_index == place]
        whole = item.arguments if item.type == "function_call" else item.content[0].text
        assert "".join(deltas) == whole


texts = st.text(max_size=12)
values = st.dictionaries(st.text(max_size=4), st.integers(-9, 9) | st.text(max_size=4), max_size=3)
pieces = st.lists(
    st.one_of(
        st.tuples(st.just("content"), texts),
        st.tuples(st.just("thinking"), texts),
        st.tuples(
            st.just("tool_calls"), st.lists(values.map(lambda found: call("look", **{"given": found})), max_size=2)
        ),
    ),
    max_size=10,
)


@given(pieces)
def test_any_row_of_chunks_is_one_answer(row: list[tuple[str, Any]]) -> None:
    found = StreamedAnswer(model="m")
    events = list(found.begin())
    for name, value in row:
        events += found.take({"message": {name: value}, "done": False})
    events += found.take({"message": {}, "done": True, "done_reason": "stop"})
    events += found.end(Usage(requests=1))
    items = events[-1].response.output

    check_events(events, items)
    texts = {kind: "".join(v for name, v in row if name == kind) for kind in ("content", "thinking")}
    of_kind = {
        kind: [each for each in items if each.type == kind] for kind in ("message", "reasoning", "function_call")
    }
    assert "".join(each.content[0].text for each in of_kind["message"]) == texts["content"]
    assert "".join(each.content[0].text for each in of_kind["reasoning"]) == texts["thinking"]
    calls = list(itertools.chain(*(v for name, v in row if name == "tool_calls")))
    assert [json.loads(each.arguments) for each in of_kind["function_call"]] == [
        each["function"]["arguments"] for each in calls
    ]


def test_a_cut_answer_is_incomplete_and_says_why() -> None:
    [item] = items_of(answer("One two", end={"done": True, "done_reason": "length"}), model="m")
    assert item.status == "incomplete"
    assert item.model_dump()["provider_data"] == {"model": "m", "finish_reason": "length"}


def test_an_answer_that_was_cut_before_its_first_word_is_an_error() -> None:
    with pytest.raises(ModelBehaviorError, match="used up its tokens"):
        items_of(answer("", thinking="Hm", end={"done": True, "done_reason": "length"}), model="m")


def test_tokens_are_counted_over_the_requests_of_a_call_and_missing_counts_are_zero() -> None:
    usage = usage_of(answer("a"), {"message": {}, "eval_count": None})
    assert (usage.requests, usage.input_tokens, usage.output_tokens, usage.total_tokens) == (2, 11, 7, 18)


def test_the_probabilities_of_the_tokens_are_kept() -> None:
    top = [{"token": "Hi", "logprob": -0.1}, {"token": "Ho", "logprob": -2.0}]
    [item] = items_of({**answer("Hi"), "logprobs": [{"token": "Hi", "logprob": -0.1, "top_logprobs": top}]}, model="m")
    [found] = item.content[0].logprobs
    assert (found.token, found.logprob, [each.token for each in found.top_logprobs]) == ("Hi", -0.1, ["Hi", "Ho"])


def test_ids_have_the_lengths_of_their_kinds() -> None:
    assert [len(new_id(kind)) for kind in ("call", "chatcmpl")] == [5 + 24, 9 + 29]
