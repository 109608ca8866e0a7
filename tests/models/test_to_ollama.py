"""Every item of a history as messages of Ollama: a table of the kinds, and no history refused or put out of order."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_input_item_param import ResponseInputItemParam

from timestep.models.to_ollama import messages_of

Json = dict[str, Any]

PIXEL = base64.b64encode(b"\x89PNG pixel").decode()
PIXEL_URL = f"data:image/png;base64,{PIXEL}"


def said(text: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def called(call_id: str, name: str = "look", arguments: str = "{}") -> Json:
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": name, "arguments": arguments}


def gave(call_id: str, output: Any) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def thought(text: str) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def message(role: str, content: str, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def tool_call(call_id: str, name: str = "look", **arguments: Any) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str, content: str, name: str = "look", **more: Any) -> Json:
    return {"role": "tool", "content": content, "tool_name": name, "tool_call_id": call_id, **more}


TABLE: dict[str, tuple[list[Json], list[Json]]] = {
    "user": ([{"role": "user", "content": "Hi"}], [message("user", "Hi")]),
    "user in parts": (
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}],
        [message("user", "a\nb")],
    ),
    "system": ([{"role": "system", "content": "Be brief"}], [message("system", "Be brief")]),
    "developer": ([{"role": "developer", "content": "Be brief"}], [message("system", "Be brief")]),
    "assistant in words": ([{"role": "assistant", "content": "Yes"}], [message("assistant", "Yes")]),
    "assistant": ([said("Yes")], [message("assistant", "Yes")]),
    "two answers": ([said("Yes"), said("No")], [message("assistant", "Yes"), message("assistant", "No")]),
    "refusal": (
        [{**said(""), "content": [{"type": "refusal", "refusal": "I cannot"}]}],
        [message("assistant", "I cannot")],
    ),
    "image": (
        [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": PIXEL_URL}],
            }
        ],
        [message("user", "?", images=[PIXEL])],
    ),
    "image of Chat Completions": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL_URL}}]}],
        [message("user", "", images=[PIXEL])],
    ),
    "file with text": (
        [
            {
                "role": "user",
                "content": [{"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain,b%20c"}],
            }
        ],
        [message("user", "a.txt:\nb c")],
    ),
    "calls and results": (
        [
            called("1", arguments='{"at": 1}'),
            called("2"),
            gave("1", "one"),
            gave("2", [{"type": "input_text", "text": "two"}]),
        ],
        [
            message("assistant", "", tool_calls=[tool_call("1", at=1), tool_call("2")]),
            result("1", "one"),
            result("2", "two"),
        ],
    ),
    "results out of order": (
        [called("1", "a"), called("2", "b"), gave("2", "two"), gave("1", "one")],
        [
            message("assistant", "", tool_calls=[tool_call("1", "a"), tool_call("2", "b")]),
            result("1", "one", "a"),
            result("2", "two", "b"),
        ],
    ),
    "ids that are used again in another turn": (
        [
            called("0", "a"),
            called("1", "b"),
            gave("0", "A"),
            gave("1", "B"),
            called("1", "c"),
            called("0", "d"),
            gave("0", "D"),
            gave("1", "C"),
        ],
        [
            message("assistant", "", tool_calls=[tool_call("0", "a"), tool_call("1", "b")]),
            result("0", "A", "a"),
            result("1", "B", "b"),
            message("assistant", "", tool_calls=[tool_call("1", "c"), tool_call("0", "d")]),
            result("1", "C", "c"),
            result("0", "D", "d"),
        ],
    ),
    "text before a call": (
        [said("Wait"), called("1"), gave("1", "one")],
        [message("assistant", "Wait", tool_calls=[tool_call("1")]), result("1", "one")],
    ),
    "text after a call": (
        [called("1"), said("Wait"), gave("1", "one")],
        [message("assistant", "Wait", tool_calls=[tool_call("1")]), result("1", "one")],
    ),
    "thinking, text and call": (
        [thought("Hm"), said("Wait"), called("1")],
        [message("assistant", "Wait", thinking="Hm", tool_calls=[tool_call("1")])],
    ),
    "thinking of two turns": (
        [thought("Hm"), said("A"), thought("Ah"), said("B")],
        [message("assistant", "A", thinking="Hm"), message("assistant", "B", thinking="Ah")],
    ),
    "summary of thinking": (
        [{"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm"}]}],
        [message("assistant", "", thinking="Hm")],
    ),
    "malformed arguments": (
        [called("1", arguments="{")],
        [message("assistant", "", tool_calls=[tool_call("1", arguments="{")])],
    ),
    "arguments that are no object": (
        [called("1", arguments="[1]")],
        [message("assistant", "", tool_calls=[tool_call("1", arguments=[1])])],
    ),
    "no arguments": ([called("1", arguments="")], [message("assistant", "", tool_calls=[tool_call("1")])]),
    "result with an image": (
        [called("1"), gave("1", [{"type": "input_image", "image_url": PIXEL_URL}])],
        [message("assistant", "", tool_calls=[tool_call("1")]), result("1", "", images=[PIXEL])],
    ),
    "result without a call": ([gave("9", "nine")], [result("9", "nine", "function_call_output")]),
    "custom tool": (
        [
            {"type": "custom_tool_call", "call_id": "1", "name": "sql", "input": "select 1"},
            {"type": "custom_tool_call_output", "call_id": "1", "output": "1"},
        ],
        [message("assistant", "", tool_calls=[tool_call("1", "sql", input="select 1")]), result("1", "1", "sql")],
    ),
    "shell": (
        [
            {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}},
            {"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "a", "stderr": ""}]},
        ],
        [
            message("assistant", "", tool_calls=[tool_call("1", "shell_call", action={"commands": ["ls"]})]),
            result("1", '[item: {"stdout": "a", "stderr": ""}]', "shell_call"),
        ],
    ),
    "local shell": (
        [
            {"type": "local_shell_call", "call_id": "1", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "local_shell_call_output", "id": "1", "output": "a"},
        ],
        [
            message(
                "assistant",
                "",
                tool_calls=[tool_call("1", "local_shell_call", action={"type": "exec", "command": ["ls"]})],
            ),
            result("1", "a", "local_shell_call"),
        ],
    ),
    "patch": (
        [
            {"type": "apply_patch_call", "call_id": "1", "operation": {"type": "delete_file", "path": "a"}},
            {"type": "apply_patch_call_output", "call_id": "1", "status": "completed", "output": "gone"},
        ],
        [
            message(
                "assistant",
                "",
                tool_calls=[tool_call("1", "apply_patch_call", operation={"type": "delete_file", "path": "a"})],
            ),
            result("1", "gone", "apply_patch_call"),
        ],
    ),
    "computer": (
        [
            {"type": "computer_call", "call_id": "1", "action": {"type": "screenshot"}},
            {
                "type": "computer_call_output",
                "call_id": "1",
                "output": {"type": "computer_screenshot", "image_url": PIXEL_URL},
            },
        ],
        [
            message("assistant", "", tool_calls=[tool_call("1", "computer_call", action={"type": "screenshot"})]),
            result("1", "", "computer_call", images=[PIXEL]),
        ],
    ),
}

LOST: dict[str, tuple[Json, str, str]] = {
    "hosted search": (
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "boats"}},
        "web_search_call",
        '[web_search_call: {"action": {"query": "boats"}}]',
    ),
    "file search": (
        {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["boats"], "results": None},
        "file_search_call",
        '[file_search_call: {"queries": ["boats"], "results": null}]',
    ),
    "code": (
        {"type": "code_interpreter_call", "id": "ci_1", "code": "1 + 1", "outputs": [{"type": "logs", "logs": "2"}]},
        "code_interpreter_call",
        '[code_interpreter_call: {"code": "1 + 1", "outputs": [{"type": "logs", "logs": "2"}]}]',
    ),
    "image generation": (
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "A" * 501},
        "image_generation_call",
        f'[image_generation_call: {{"result": "{"A" * 40}..."}}]',
    ),
    "hosted MCP call": (
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "t", "arguments": "{}", "output": "done"},
        "mcp_call",
        '[mcp_call: {"server_label": "s", "name": "t", "arguments": "{}", "output": "done"}]',
    ),
    "hosted MCP tools": (
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []},
        "mcp_list_tools",
        '[mcp_list_tools: {"server_label": "s", "tools": []}]',
    ),
    "hosted MCP question": (
        {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "t", "arguments": "{}"},
        "mcp_approval_request",
        '[mcp_approval_request: {"server_label": "s", "name": "t", "arguments": "{}"}]',
    ),
    "hosted MCP decision": (
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        "mcp_approval_response",
        '[mcp_approval_response: {"approval_request_id": "mcpr_1", "approve": true}]',
    ),
    "tool search": (
        {"type": "tool_search_call", "call_id": "1", "arguments": {"query": "boats"}},
        "tool_search_call",
        '[tool_search_call: {"call_id": "1", "arguments": {"query": "boats"}}]',
    ),
    "tool search result": (
        {"type": "tool_search_output", "call_id": "1", "tools": []},
        "tool_search_output",
        '[tool_search_output: {"call_id": "1", "tools": []}]',
    ),
    "further tools": (
        {"type": "additional_tools", "tools": []},
        "additional_tools",
        '[additional_tools: {"tools": []}]',
    ),
    "configuration": (
        {"type": "configuration_update", "model": "n"},
        "configuration_update",
        '[configuration_update: {"model": "n"}]',
    ),
    "compaction to come": ({"type": "compaction_trigger"}, "compaction_trigger", "[compaction_trigger: {}]"),
    "program": ({"type": "program", "id": "p_1", "code": "go()"}, "program", '[program: {"code": "go()"}]'),
    "program result": (
        {"type": "program_output", "call_id": "1", "result": "gone"},
        "program_output",
        '[program_output: {"call_id": "1", "result": "gone"}]',
    ),
    "reference": ({"type": "item_reference", "id": "msg_1"}, "item_reference", "[item_reference: {}]"),
    "compaction": ({"type": "compaction", "encrypted_content": "x"}, "compaction", "[compaction: {}]"),
    "unknown": ({"type": "dream", "of": "sheep"}, "dream", '[dream: {"of": "sheep"}]'),
}


@pytest.mark.parametrize(("items", "messages"), TABLE.values(), ids=TABLE)
def test_an_item_becomes_these_messages(items: list[Json], messages: list[Json]) -> None:
    converted = messages_of(items)
    assert converted.messages == messages
    assert converted.lost <= {"unknown content"}


@pytest.mark.parametrize(("item", "kind", "text"), LOST.values(), ids=LOST)
def test_what_ollama_has_no_word_for_stays_in_its_place_and_is_named(item: Json, kind: str, text: str) -> None:
    converted = messages_of([{"role": "user", "content": "Before"}, item, {"role": "user", "content": "After"}])
    assert [each["content"] for each in converted.messages] == ["Before", text, "After"]
    assert converted.lost == {kind}


def test_the_tables_have_every_type_of_item_that_the_client_of_openai_knows() -> None:
    declared = [get_type_hints(kind)["type"] for kind in get_args(ResponseInputItemParam)]
    known = {each for kind in declared for each in get_args(kind) if isinstance(each, str)}
    tried = {item.get("type", "message") for items, _ in TABLE.values() for item in items}
    assert known <= tried | {item["type"] for item, _, _ in LOST.values()}
    assert len(known) > 25


@pytest.mark.parametrize("part", [
    {"type": "input_image", "image_url": "https://example.com/a.png"},
    {"type": "input_image", "file_id": "file-1"},
    {"type": "input_file", "file_url": "https://example.com/a.pdf"},
    {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
])  # fmt: skip
def test_content_that_ollama_does_not_take_is_told_of(part: Json) -> None:
    converted = messages_of([{"role": "user", "content": [part]}])
    assert part["type"] in converted.messages[0]["content"]
    assert converted.lost == {part["type"]}


def test_an_image_that_names_a_file_is_never_read_from_disk() -> None:
    converted = messages_of([{"role": "user", "content": [{"type": "input_image", "image_url": "/etc/hostname"}]}])
    assert "images" not in converted.messages[0]


def test_encrypted_thinking_is_left_out_and_named() -> None:
    converted = messages_of([{"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"}])
    assert (converted.messages, converted.lost) == ([], {"encrypted reasoning"})


def test_instructions_come_first() -> None:
    assert messages_of("Hi", "Be brief").messages == [message("system", "Be brief"), message("user", "Hi")]


def test_a_model_of_the_sdk_is_an_item_too() -> None:
    from openai.types.responses import ResponseFunctionToolCall

    item = ResponseFunctionToolCall(type="function_call", call_id="1", name="look", arguments='{"at": 1}')
    assert messages_of([item]).messages == [message("assistant", "", tool_calls=[tool_call("1", at=1)])]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
words = st.text(min_size=1, max_size=8).filter(str.strip)
turns = st.lists(
    st.one_of(
        st.tuples(st.just("user"), words),
        st.tuples(st.just("system"), words),
        st.tuples(st.just("assistant"), words),
        st.tuples(st.just("thinking"), words),
        st.tuples(st.just("calls"), st.permutations(range(3))),
    ),
    max_size=12,
)


@given(turns)
def test_no_history_is_put_out_of_order(history: list[tuple[str, Any]]) -> None:
    """Each text carries its place; calls carry theirs, and their results come in any order."""
    items: list[Json] = []
    for place, (kind, value) in enumerate(history):
        text = f"{place} {value}"
        if kind == "calls":
            items += [called(f"{place}.{number}", arguments=json.dumps({"n": number})) for number in range(3)]
            items += [gave(f"{place}.{number}", f"{place}.{number}") for number in value]
        elif kind == "assistant":
            items.append(said(text))
        elif kind == "thinking":
            items.append(thought(text))
        else:
            items.append({"role": kind, "content": text})

    messages = messages_of(items).messages

    places: list[int] = []
    for each in messages:
        for text in (each.get("thinking"), each["content"] if each["role"] != "tool" else None):
            places += [int(text.split()[0])] if text else []
        calls = each.get("tool_calls", ())
        assert [call["function"]["arguments"]["n"] for call in calls] in ([], [0, 1, 2])
        places += [int(call["id"].split(".")[0]) for call in calls[:1]]
    assert places == list(range(len(history)))
    results = [each["content"] for each in messages if each["role"] == "tool"]
    assert results == [f"{place}.{n}" for place, (kind, _) in enumerate(history) if kind == "calls" for n in range(3)]


kinds = st.sampled_from([
    "message", "function_call", "function_call_output", "reasoning", "custom_tool_call", "custom_tool_call_output",
    "computer_call", "computer_call_output", "local_shell_call", "local_shell_call_output", "shell_call", "mcp_call",
    "shell_call_output", "apply_patch_call", "apply_patch_call_output", "web_search_call", "file_search_call",
    "code_interpreter_call", "image_generation_call", "mcp_list_tools", "mcp_approval_request",
    "mcp_approval_response", "tool_search_call", "tool_search_output", "compaction", "item_reference", "other", None,
])  # fmt: skip
part_kinds = st.sampled_from(["input_text", "input_image", "input_file", "refusal", "odd"])
parts = st.fixed_dictionaries({"type": part_kinds}, optional={"text": words, "image_url": words, "file_data": words})
contents = json_values | st.lists(parts, max_size=3)
any_items = st.fixed_dictionaries(
    {"type": kinds},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "developer", "odd"]),
        "content": contents,
        "output": contents,
        "arguments": st.text(max_size=6) | json_values,
        "call_id": words,
        "id": words,
        "name": words,
        "input": st.text(max_size=5),
        "action": json_values,
        "summary": st.lists(st.fixed_dictionaries({"type": st.just("summary_text"), "text": words}), max_size=2),
    },
)


@given(st.lists(any_items, max_size=8))
def test_no_history_is_refused(items: list[Json]) -> None:
    messages = messages_of(items).messages
    assert json.loads(json.dumps(messages)) == messages
    for each in messages:
        assert each["role"] in ("system", "user", "assistant", "tool")
        assert isinstance(each["content"], str)
        assert all(isinstance(call["function"]["arguments"], dict) for call in each.get("tool_calls", ()))
