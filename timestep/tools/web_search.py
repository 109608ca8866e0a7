"""The tool `web_search`: search the web through Firecrawl, in an agent or called directly.

The client is the extra `timestep[search]`, and is imported at the first search. The key is that of `FIRECRAWL_API_KEY`;
`FIRECRAWL_API_URL` names a Firecrawl of one's own.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from agents import FunctionTool, function_tool
from typing_extensions import TypedDict

from timestep.errors import ApiKeyMissingError, InvalidInputError, UnsupportedError
from timestep.event_loops import of_running_loop

log = logging.getLogger("timestep")

NAME = "web_search"
CLOUD_URL = "https://api.firecrawl.dev"
RESULTS = {"low": 5, "medium": 10, "high": 20}
"""How many results each context size asks for."""

ATTEMPT_SECONDS = 30.0
"""Time limit of one request."""

ATTEMPTS = 2
"""Requests of one search: a network error, a time limit and status 502 are tried again."""

ContextSize = Literal["low", "medium", "high"]


class Location(TypedDict, total=False):
    """Where the person is: names, and a country as a name or as its two letters."""

    city: str | None
    region: str | None
    country: str | None


class Filters(TypedDict, total=False):
    """What results are kept: those of these domains."""

    allowed_domains: list[str] | None


class SearchTool(FunctionTool):
    """Search the web: a tool of `Agent(tools=[web_search])`, and called directly, `await web_search("tides")`."""

    async def __call__(
        self,
        query: str,
        user_location: Location | None = None,
        filters: Filters | None = None,
        search_context_size: ContextSize = "medium",
    ) -> str:
        """Search the web and return the results as text, numbered, each with its title, URL and description.

        `search_context_size` is 5, 10 or 20 results: low, medium, high. Without results the text is
        `No search results found.`; when the search fails it begins with `Error performing web search: `, and the log
        says why.

        Raises:
            InvalidInputError: there is no such context size.
            ApiKeyMissingError: FIRECRAWL_API_KEY is not set; it is a ValueError.
            UnsupportedError: the extra `timestep[search]` is not installed.
        """
        return await _search(query, user_location, filters, search_context_size)


async def _search(
    query: str, user_location: Location | None, filters: Filters | None, search_context_size: ContextSize
) -> str:
    if search_context_size not in RESULTS:
        raise InvalidInputError(f"search_context_size is {', '.join(RESULTS)}, not {search_context_size!r}.")
    key = os.environ.get("FIRECRAWL_API_KEY", "").strip()
    if not key:
        raise ApiKeyMissingError(
            "FIRECRAWL_API_KEY is not set.", hint="Set it to a key of Firecrawl to search the web."
        )
    if not query.strip():
        return _failed("the query is empty", query, None)
    firecrawl = await _load_client()
    url = os.environ.get("FIRECRAWL_API_URL", "").strip() or CLOUD_URL
    client = _client(firecrawl, key, url)
    options = _place(user_location or {}) | {
        "limit": RESULTS[search_context_size],
        "include_domains": _domains((filters or {}).get("allowed_domains") or []) or None,
        "timeout": int(ATTEMPT_SECONDS * 1000),
    }
    try:
        found = await client.search(query, **options)
    except Exception as error:
        reason = _reason(error, firecrawl)
        if reason is None:
            raise
        return _failed(reason, query, error)
    if found.warning:
        log.warning("Firecrawl warns about the search for %r: %s", query, found.warning)
    return _text(found.web or [])


async def _search_for_agent(
    query: str,
    user_location: Location | None = None,
    filters: Filters | None = None,
    search_context_size: ContextSize = "medium",
) -> str:
    try:
        return await _search(query, user_location, filters, search_context_size)
    except (ApiKeyMissingError, UnsupportedError) as error:
        return _failed("web search is not set up here, so do without it", query, error)


def _client(firecrawl: Any, key: str, url: str) -> Any:
    """Return the client of the running event loop."""

    def make() -> Any:
        return firecrawl.AsyncFirecrawl(api_key=key, api_url=url, timeout=ATTEMPT_SECONDS, max_retries=ATTEMPTS)

    async def close(made: Any) -> None:  # the package has no name for it
        http = getattr(getattr(made, "_v2_client", None), "async_http_client", None)
        if http is not None:
            await http.close()

    return of_running_loop(("firecrawl", key, url), make, close)


async def _load_client() -> Any:
    try:
        return await asyncio.to_thread(importlib.import_module, "firecrawl")  # takes a second
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"Web search needs the package firecrawl-py, and there is no module {error.name!r}.",
            hint="Install it: pip install 'timestep[search]'.",
        ) from error


def _failed(reason: str, query: str, error: Exception | None) -> str:
    """Note in the log why a search failed, and return what its caller is told."""
    hint = error.hint if isinstance(error, (ApiKeyMissingError, UnsupportedError)) else ""
    cause = f" {type(error).__name__}: {error} {hint}".rstrip() if error is not None else ""
    log.warning("The web search for %r failed: %s.%s", query, reason, cause)
    return f"Error performing web search: {reason}."


def _reason(error: Exception, firecrawl: Any) -> str | None:
    """Return why a search failed, in words for the model; None of an error that is no failure of the search."""
    import httpx

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (firecrawl.UnauthorizedError, "the search service refused the key"),
        (firecrawl.PaymentRequiredError, "the quota of the search service is used up"),
        (firecrawl.RateLimitError, "too many searches in a short time; search again later"),
        (firecrawl.RequestTimeoutError, "the search service did not finish in time"),
        (firecrawl.BadRequestError, "the search service refused the request"),
        (firecrawl.FirecrawlError, "the search service failed"),
        (httpx.TimeoutException, "the search service did not answer in time"),
        (httpx.HTTPError, "the search service cannot be reached"),
        (ValueError, "the answer of the search service cannot be read"),
    )
    return next((text for kind, text in reasons if isinstance(error, kind)), None)


def _place(location: Location) -> dict[str, str]:
    """Return a location as Firecrawl takes it: a place in words, and a country by its two letters."""
    country = (location.get("country") or "").strip()
    is_code = len(country) == 2 and country.isalpha()
    words = [(location.get("city") or "").strip(), (location.get("region") or "").strip(), country]
    place = ",".join(word for word in words if word)
    return ({"country": country.upper()} if is_code else {}) | ({"location": place} if place else {})


def _domains(allowed: Sequence[str]) -> list[str]:
    """Return domains without what people write around them: a scheme, a path, white space."""
    hosts = (urlsplit(each.strip() if "//" in each else f"//{each.strip()}").netloc for each in allowed)
    return [host for host in hosts if host]


def _text(results: Sequence[Any]) -> str:
    return "\n\n".join(map(_entry, range(1, len(results) + 1), results)) or "No search results found."


def _entry(number: int, result: Any) -> str:
    title, url = _field(result, "title") or "No title", _field(result, "url")
    lines = [f"{number}. {title}", f"   URL: {url}", f"   {_field(result, 'description')}"]
    return "\n".join(line for line in lines if line.strip())


def _field(result: Any, name: str) -> str:
    """Return a field of a result, or of its metadata when it is a whole document, on one line."""
    value = getattr(result, name, None) or getattr(getattr(result, "metadata", None), name, None)
    return " ".join(str(value or "").split())


_TEXT = {"type": "string"}
_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What to search for."},
        "user_location": {
            "type": "object",
            "description": "Where the person is, when results depend on it. A country may be its two letters.",
            "properties": {"city": _TEXT, "region": _TEXT, "country": _TEXT},
        },
        "filters": {
            "type": "object",
            "description": "Which results to keep.",
            "properties": {
                "allowed_domains": {
                    "type": "array",
                    "items": _TEXT,
                    "description": "Domains such as example.com; all when left out.",
                }
            },
        },
        "search_context_size": {
            "type": "string",
            "enum": list(RESULTS),
            "description": "How many results: low 5, medium 10, high 20. Medium when left out.",
        },
    },
    "required": ["query"],
    "additionalProperties": False,
}
"""Written out: without alternatives of null, which some models and clients do not read."""

web_search = SearchTool(
    name=NAME,
    description="Search the web and return titles, URLs and descriptions of what is found.",
    params_json_schema=dict(_SCHEMA),
    on_invoke_tool=function_tool(_search_for_agent, name_override=NAME, strict_mode=False).on_invoke_tool,
    strict_json_schema=False,
)
