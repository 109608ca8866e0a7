"""Between the agents and the model: notes every request, and can hold an answer back in the middle."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable

from loopback_server import Exchange, Json, LoopbackServer

HELD_AFTER = 10
"""How many parts of an answer go through before it is held; its last part never does."""

LAST_PART = re.compile(rb'"finish_reason": ?"')

PAUSE_SECONDS = 0.1
"""Between the parts of an answer that is to be held: longer than text waits for more of it."""


class CountingProxy(LoopbackServer):
    """The proxy, listening on a free port until it is closed."""

    def __init__(self, model_url: str) -> None:
        self.model_address = model_url.removeprefix("http://")
        self.requests: list[Json] = []
        self.is_held: Callable[[Json], bool] = lambda _: False
        super().__init__()

    @property
    def url(self) -> str:
        """The address that clients use."""
        return self.address

    def hold(self, is_held: Callable[[Json], bool]) -> None:
        """Hold the answers to requests of which this is true, until they are released."""
        self.is_held = is_held

    def release(self) -> None:
        """Let all answers through from now on."""
        self.released.set()

    def reply(self, exchange: Exchange) -> None:
        self.requests.append(exchange.body)
        upstream = http.client.HTTPConnection(self.model_address)
        try:
            upstream.request("POST", exchange.path, exchange.data, {"content-type": "application/json"})
            is_held = self.is_held(exchange.body) and not self.released.is_set()
            self._pass_on(upstream.getresponse(), exchange, is_held=is_held)
        finally:
            upstream.close()

    def _pass_on(self, answer: http.client.HTTPResponse, exchange: Exchange, *, is_held: bool) -> None:
        exchange.begin_stream(answer.getheader("content-type", "application/json"), answer.status)
        parts = 0
        while line := answer.readline():
            if is_held and line.startswith(b"data: "):
                parts += 1
                time.sleep(PAUSE_SECONDS)
                if parts > HELD_AFTER or LAST_PART.search(line):
                    self.released.wait()
            exchange.send_chunks([line])
        exchange.end_stream()
