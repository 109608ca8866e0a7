"""A server of Chat Completions on loopback that answers `done` or refuses, and notes when it was asked."""

from __future__ import annotations

import time
from typing import Any

from loopback_server import Exchange, LoopbackServer


class StampingServer(LoopbackServer):
    """The server, listening on a free port until it is closed. `stamps` are (seconds, what the user said)."""

    def __init__(self) -> None:
        self.stamps: list[tuple[float, str]] = []
        self.refusals: dict[str, int] = {}
        """The seconds of `Retry-After` by what the user says; each is refused once."""
        super().__init__()

    @property
    def url(self) -> str:
        """The base url of a client."""
        return f"{self.address}/v1"

    def reply(self, exchange: Exchange) -> None:
        said = exchange.body["messages"][-1]["content"]
        self.stamps.append((time.monotonic(), said))
        if (seconds := self.refusals.pop(said, None)) is not None:
            exchange.send_json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": str(seconds)})
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": "done"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 1, "model": "stamped"}
        exchange.send_json(head | {"choices": [choice], "usage": usage})
