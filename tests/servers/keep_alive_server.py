"""A model server that keeps its connections open, as real ones do: only then a client of another loop is noticed.

It speaks a little of OpenAI's protocols and of Ollama's. A user's text `call NAME` makes a model call that tool, and
what it returned is the answer; any other text is said again.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class KeepAliveServer:
    """The server, until it is closed. `connections` counts those that were opened, `requests` are the texts asked."""

    def __init__(self) -> None:
        self.connections = 0
        self.open = 0
        self.requests: list[str] = []
        self.may_answer = threading.Event()
        """Cleared, requests wait for their answers."""
        self.may_answer.set()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self.may_answer.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    owner: KeepAliveServer
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.owner.connections += 1
        self.server.owner.open += 1

    def finish(self) -> None:
        self.server.owner.open -= 1
        super().finish()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        items = body.get("messages") or body["input"]
        items = [{"role": "user", "content": items}] if isinstance(items, str) else items
        asked = next((item for item in reversed(items) if item.get("role") == "user"), {})
        last = items[-1]
        result = last.get("output") if last.get("type") == "function_call_output" else None
        result = last["content"] if last.get("role") == "tool" else result
        self.server.owner.requests.append(str(asked.get("content")))
        self.server.owner.may_answer.wait()
        tool = str(asked.get("content")).removeprefix("call ") if result is None else None
        tool = tool if str(asked.get("content")).startswith("call ") else None
        text = f"{result}" if result is not None else f"you said {asked.get('content')}"
        answer = self._answer(text, tool, number=len(self.server.owner.requests))
        if body.get("stream") and self.path.endswith("/responses"):
            self._send(_events(answer), "text/event-stream")
        else:
            self._send(json.dumps(answer), "application/json")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, text: str, tool: str | None, *, number: int) -> Json:
        if self.path == "/api/chat":
            message: Json = {"role": "assistant", "content": "" if tool else text}
            if tool:
                message["tool_calls"] = [{"function": {"name": tool, "arguments": {}}}]
            return {"model": "m", "message": message, "done": True, "done_reason": "stop"}
        if self.path.endswith("/chat/completions"):
            message = {"role": "assistant", "content": None if tool else text}
            if tool:
                function = {"name": tool, "arguments": "{}"}
                message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            head = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
            return head | {"choices": [choice], "usage": usage}
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        item: Json = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
        if tool:
            item = {"id": "fc_1", "type": "function_call", "status": "completed"}
            item |= {"call_id": f"call_{number}", "name": tool, "arguments": "{}"}
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        return {
            "id": f"resp_{number}", "object": "response", "created_at": 1, "model": "m", "status": "completed",
            "output": [item], "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
            "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
            "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2} | details,
        }  # fmt: skip

    def _send(self, body: str, kind: str) -> None:
        data = body.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


def _events(response: Json) -> str:
    """Return a whole answer of the Responses API as the events of a stream."""
    [item] = response["output"]
    begun = {"type": "response.created", "response": response | {"status": "in_progress", "output": [], "usage": None}}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    completed = {"type": "response.completed", "response": response}
    numbered = enumerate((begun, done, completed), start=1)
    return "".join(
        f"event: {event['type']}\ndata: {json.dumps(event | {'sequence_number': number})}\n\n"
        for number, event in numbered
    )
