"""The main job on a real model over HTTP: streamed, killed in mid-answer, finished by the next executor.

Answers vary: the tests look at shapes, never at words.
"""

from __future__ import annotations

import collections
import json
from typing import Any

import pytest
from counting_proxy import CountingProxy
from stories import Stories

pytestmark = pytest.mark.long

Json = dict[str, Any]


def asked(requests: list[Json]) -> dict[str, int]:
    """Return how often the model was asked in the name of each agent."""
    return collections.Counter(request["messages"][0]["content"].split()[-1].rstrip(".") for request in requests)


def text_of(events: list[Json], attempt: str) -> str:
    """Return the top agent's text of an attempt."""
    return "".join(
        event["text"]
        for event in events
        if event["type"] == "text_delta" and not event.get("path") and event["attempt"] == attempt
    )


def test_a_run_that_is_killed_in_mid_answer_is_finished_without_asking_a_finished_turn_again(
    stories: Stories, proxy: CountingProxy
) -> None:
    proxy.hold(lambda request: asked([request])["manager"] == 1)
    command = ("run", "Tell me about the boat", "--agent", "story_agents:manager", "--id", "boat", "--session", "lake")

    first = stories.start(*command)
    begun = stories.first_words(first)
    first.kill()
    first.wait()
    proxy.release()
    assert begun, stories.errors()
    worker = stories.start("worker", "story_agents")
    stories.wait_for("boat", "succeeded")
    worker.terminate()
    assert worker.wait() == 0, stories.errors()

    assert asked(proxy.requests) == {"poet": 1, "critic": 1, "manager": 2}
    [run] = stories.query("select * from timestep.runs where id = 'boat'")
    assert run["output"]
    steps = [step for step in stories.steps("boat") if "model_turn" in step]
    assert sorted(steps) == [
        "1:call_critic/model_turn:1:critic",
        "1:call_poet/model_turn:1:poet",
        "model_turn:1:manager",
        "model_turn:2:manager",
    ]

    events = stories.events("boat")
    attempts = [event["attempt"] for event in events if event["type"] == "text_delta" and not event.get("path")]
    assert list(dict.fromkeys(attempts)) == ["1.0", "2.0"]
    assert text_of(events, "1.0")
    assert text_of(events, "2.0") == run["output"]
    assert {event["attempt"] for event in events if event.get("path")} == {"1.0"}

    used = stories.query("select step, requests, input_tokens, output_tokens from timestep.usage where run_id = 'boat'")
    assert sorted(row["step"] for row in used) == sorted(steps)
    assert {row["requests"] for row in used} == {1}
    assert all(row["input_tokens"] and row["output_tokens"] for row in used if row["step"] != "model_turn:1:manager")

    items = [row["item"] for row in stories.query("select * from timestep.session_items order by position")]
    assert [item.get("type", "message") for item in items] == [
        "message", "function_call", "function_call", "function_call_output", "function_call_output", "message",
    ]  # fmt: skip

    stories.run("run", "And then?", "--agent", "story_agents:poet", "--id", "boat-2", "--session", "lake")
    conversation = proxy.requests[-1]["messages"]
    assert [message["content"] for message in conversation if message["role"] == "user"] == [
        "Tell me about the boat",
        "And then?",
    ]
    answers = [message for message in conversation if message["role"] == "assistant"]
    assert run["output"] in str(answers[-1]["content"])
    assert len(proxy.requests) == 5


def test_the_demo_runs_on_the_real_model_when_it_is_asked_to(stories: Stories, model_url: str) -> None:
    told = json.loads(stories.run("demo", "--model", "local", "--kills", "0", "--json"))
    assert told["output"]
    assert (told["model_calls"]["needed"], told["tool_calls"]["needed"]) == (7, 7)
