"""A server on loopback that answers as OpenAI's Responses API does: it calls the first tool once, then says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loopback_server import Exchange, LoopbackServer

WORDS = {"string": "A-17", "integer": 1, "number": 1.5, "boolean": True}


@contextmanager
def answering_server() -> Iterator[str]:
    """Serve on a free port; the value is the base URL for a client."""
    server = _AnsweringServer()
    try:
        yield f"{server.address}/v1"
    finally:
        server.close()


class _AnsweringServer(LoopbackServer):
    def reply(self, exchange: Exchange) -> None:
        request = exchange.body
        response = _response(request)
        if request.get("stream"):
            events = [{"type": "response.created", "response": response | {"output": [], "status": "in_progress"}}]
            for item in response["output"]:
                if item["type"] == "message":
                    text = item["content"][0]["text"]
                    events.append({"type": "response.output_text.delta", "delta": text, "item_id": item["id"],
                                   "output_index": 0, "content_index": 0, "logprobs": []})  # fmt: skip
                events.append({"type": "response.output_item.done", "item": item, "output_index": 0})
            events.append({"type": "response.completed", "response": response})
            lines = [
                f"event: {event['type']}\ndata: {json.dumps(event | {'sequence_number': number})}\n\n"
                for number, event in enumerate(events)
            ]
            exchange.send_whole("".join(lines).encode(), kind="text/event-stream")
        else:
            exchange.send_json(response)


def _response(request: dict[str, Any]) -> dict[str, Any]:
    given = request["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    last_user = max((number for number, item in enumerate(items) if item.get("role") == "user"), default=0)
    results = [item["output"] for item in items[last_user:] if item.get("type") == "function_call_output"]
    tools = [tool for tool in request.get("tools") or [] if tool["type"] == "function"]
    if tools and not results:
        output = {
            "id": "fc_1", "type": "function_call", "call_id": f"call_{len(items)}", "status": "completed",
            "name": tools[0]["name"], "arguments": json.dumps(_arguments(tools[0]["parameters"])),
        }  # fmt: skip
    else:
        said = f"The tool says {results[0]}." if results else f"You said {items[last_user]['content']!r}."
        text = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        output = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "resp_1", "object": "response", "created_at": 0, "model": request["model"], "status": "completed",
        "output": [output], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15,
                  "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                  "output_tokens_details": {"reasoning_tokens": 0}},
    }  # fmt: skip


def _arguments(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: WORDS.get(part.get("type"), "A-17") for name, part in schema.get("properties", {}).items()}
