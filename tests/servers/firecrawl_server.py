"""Firecrawl's search on loopback: `POST /v2/search` in the shapes of its API, answering and failing as it is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loopback_server import Exchange, Json, LoopbackServer

ERRORS = {
    400: "Invalid request body",
    401: "Unauthorized: Invalid token",
    402: "Insufficient credits to perform this request. For more credits, you can upgrade your plan.",
    408: "The search timed out.",
    429: "Rate limit exceeded. Consumed (req/min): 11, Remaining (req/min): 0.",
    500: "An unexpected error occurred. Please contact support.",
    502: "Bad gateway",
    503: "Service unavailable",
}


def results(count: int) -> list[Json]:
    """Results as the search returns them without scraping."""
    return [
        {
            "url": f"https://tides.example/{number}",
            "title": f"Tides {number}",
            "description": f"About  the tides,\n part {number}.",
            "position": number,
        }
        for number in range(1, count + 1)
    ]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came in."""

    path: str
    authorization: str | None
    body: Json


class FirecrawlServer(LoopbackServer):
    """The search, listening on a free port until it is closed.

    It finds as many results as asked for, or `found`. `statuses` are those of the next requests, then 200; a status 0
    drops the connection and -1 never answers.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.statuses: list[int] = []
        self.found: Sequence[Any] | None = None
        self.text: str | None = None
        super().__init__()

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.address

    def reply(self, exchange: Exchange) -> None:
        authorization = exchange.headers["Authorization"]
        self.requests.append(Request(path=exchange.path, authorization=authorization, body=exchange.body))
        status = self.statuses.pop(0) if self.statuses else 200
        if status == -1:
            self.released.wait(30)
        if status <= 0:
            exchange.close_connection = True
            return
        answer = self.text or json.dumps(self.answer(status, exchange.body))
        exchange.send_json(answer.encode(), status=status)

    def answer(self, status: int, body: Json) -> Json:
        """Return the JSON of an answer."""
        if status != 200:
            return {"success": False, "error": ERRORS[status]}
        web = self.found if self.found is not None else results(body["limit"])
        return {"success": True, "data": {"web": web}, "creditsUsed": 2, "id": "0199a7c0-5f7e-7000-8000-000000000000"}
