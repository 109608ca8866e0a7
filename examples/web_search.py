"""Web search: an agent searches with `web_search`, and a program calls the same tool directly.

Run it with `python examples/web_search.py`. With FIRECRAWL_API_KEY it searches the web; without it a stand-in on
loopback answers, so that the example runs without a key.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import uuid
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer

from agents import Agent
from scripted import DecidingModel, Decision

from timestep import run_agent_workflow, web_search


class StandIn(BaseHTTPRequestHandler):
    """Answers a search as Firecrawl does, with made-up results."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        web = [
            {"title": f"Page {number} about {asked['query']}", "url": f"https://example.com/{number}"}
            for number in range(1, asked["limit"] + 1)
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"success": True, "data": {"web": web}}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def a_search_service() -> Generator[None]:
    """Use Firecrawl when there is a key, else the stand-in."""
    if os.environ.get("FIRECRAWL_API_KEY"):
        yield
        return
    print("FIRECRAWL_API_KEY is not set: a stand-in answers.")
    with HTTPServer(("127.0.0.1", 0), StandIn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ["FIRECRAWL_API_KEY"] = "of-the-stand-in"
        os.environ["FIRECRAWL_API_URL"] = f"http://127.0.0.1:{server.server_port}"
        yield
        server.shutdown()


def research(said: list[str], results: list[str]) -> Decision:
    if not results:
        return [("web_search", {"query": said[-1], "search_context_size": "low"})]
    titles = [line for line in results[0].splitlines() if line[:1].isdigit()]
    return f"I found {len(titles)} pages, first of all {titles[0]!r}."


async def main() -> None:
    agent = Agent(name="researcher", model=DecidingModel(research), tools=[web_search])
    with a_search_service():
        run_id = f"research-{uuid.uuid4().hex[:8]}"
        result = await run_agent_workflow(agent=agent, input_items="tide mills", workflow_id=run_id)
        print(result.output)
        print("Called directly:")
        print(await web_search("tide mills", filters={"allowed_domains": ["example.com"]}, search_context_size="low"))


if __name__ == "__main__":
    asyncio.run(main())
