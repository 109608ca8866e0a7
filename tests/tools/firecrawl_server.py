"""Firecrawl's search on loopback: `POST /v2/search` in the shapes of its API, answering and failing as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

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


class FirecrawlServer:
    """The search, listening on a free port until it is closed.

    It finds as many results as asked for, or `found`. `statuses` are those of the next requests, then 200; a status 0
    drops the connection and -1 never answers.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.statuses: list[int] = []
        self.found: Sequence[Any] | None = None
        self.text: str | None = None
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(Request(path=self.path, authorization=self.headers["Authorization"], body=body))
                status = server.statuses.pop(0) if server.statuses else 200
                if status == -1:
                    server.released.wait(30)
                if status <= 0:
                    self.close_connection = True
                    return
                answer = server.text or json.dumps(server.answer(status, body))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.encode())))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer(self, status: int, body: Json) -> Json:
        """Return the JSON of an answer."""
        if status != 200:
            return {"success": False, "error": ERRORS[status]}
        web = self.found if self.found is not None else results(body["limit"])
        return {"success": True, "data": {"web": web}, "creditsUsed": 2, "id": "0199a7c0-5f7e-7000-8000-000000000000"}

    def close(self) -> None:
        """Stop listening, and end what hangs."""
        self.released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
