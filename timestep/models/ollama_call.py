"""One request of Ollama's `/api/chat`, and what its failures are called.

The request goes through the HTTP client of the `ollama` package, which is private there: the package's own `chat` cuts
the schemas of tools (`anyOf`, `$ref`, nested properties), drops the ids of calls, and loses `Retry-After`.
"""

from __future__ import annotations

import email.utils
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast

from timestep.errors import (
    IncompleteModelResponseError,
    ModelNotFoundError,
    ModelProviderError,
    ModelServerUnreachableError,
)
from timestep.models.clients import http_of
from timestep.models.failures import RETRYABLE_STATUS

Json = Any

KEY_VARIABLE = "OLLAMA_API_KEY"
CLOUD_NAME = "ollama.com"
CHAT = "/api/chat"
NOT_OLLAMA = "Is this an Ollama server? Its base_url ends without a path, such as http://localhost:11434."


async def ask(client: Any, body: Mapping[str, Json], *, is_given: bool, **options: Any) -> dict[str, Json]:
    """Return the whole answer to a request.

    Args:
        is_given: The client is the caller's own: the key of the environment is kept from other hosts than Ollama's.
        options: `headers` and `params` of the request.

    Raises:
        ModelProviderError: the server refused, or cannot be reached.
        IncompleteModelResponseError: the answer broke off.
    """
    data = b""
    async with aclosing(_bytes_of(client, {**body, "stream": False}, is_given=is_given, options=options)) as parts:
        async for part in parts:
            data += part
    answer = _parsed(data, body)
    if not answer.get("done"):
        raise IncompleteModelResponseError(
            f"The answer of {body['model']!r} does not say that it is done.", hint=NOT_OLLAMA
        )
    return answer


async def stream(
    client: Any, body: Mapping[str, Json], *, is_given: bool, **options: Any
) -> AsyncGenerator[dict[str, Json]]:
    """Yield the chunks of an answer; raises as `ask` does, at the chunk where it breaks."""
    rest = b""
    async with aclosing(_bytes_of(client, {**body, "stream": True}, is_given=is_given, options=options)) as parts:
        async for part in parts:
            # Not by `aiter_lines`: it also splits at characters that may stand inside a JSON text.
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.strip():
                    yield _parsed(line, body)
    if rest.strip():
        yield _parsed(rest, body)


async def _bytes_of(
    client: Any, body: Mapping[str, Json], *, is_given: bool, options: Mapping[str, Any]
) -> AsyncGenerator[bytes]:
    import httpx  # it comes with `ollama`, without which there is no client

    http = http_of(client)
    # ASCII: a text may hold half of a surrogate pair, which has no UTF-8.
    request = http.build_request("POST", CHAT, content=json.dumps(body, default=str).encode(), **options)
    if is_given and not _is_cloud(request.url.host) and _has_key_of_environment(request.headers):
        del request.headers["authorization"]
    where = f"{request.url.scheme}://{request.url.netloc.decode()}"
    try:
        response = await http.send(request, stream=True)
        try:
            if response.status_code >= 300:
                raise _refusal(response, await response.aread(), body=body, where=where)
            parts: AsyncIterator[bytes] = response.aiter_bytes()
            async for part in parts:
                yield part
        finally:
            await response.aclose()
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise ModelServerUnreachableError(
            f"No Ollama server answers at {where}.",
            hint="Start it with `ollama serve`, or name where it is: OllamaModelProvider(base_url=...).",
        ) from error
    except httpx.TimeoutException as error:
        message = f"The Ollama server at {where} did not answer in time ({type(error).__name__})."
        raise ModelProviderError(message, retryable=True) from error
    except httpx.RequestError as error:
        raise IncompleteModelResponseError(
            f"The connection to the Ollama server at {where} broke: {error or type(error).__name__}."
        ) from error


def _parsed(data: bytes, body: Mapping[str, Json]) -> dict[str, Json]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise IncompleteModelResponseError(f"The answer of {body['model']!r} holds a line that is not JSON.") from error
    if not isinstance(found, dict):
        raise IncompleteModelResponseError(f"The answer of {body['model']!r} holds a line that is not an object.")
    answer = cast("dict[str, Json]", found)
    if answer.get("error"):
        raise ModelProviderError(
            f"The model {body['model']!r} failed: {_message(answer['error'])}",
            hint="See the log of the Ollama server.",
            retryable=True,
        )
    return answer


def _refusal(response: Any, data: bytes, *, body: Mapping[str, Json], where: str) -> ModelProviderError:
    """Return the error of a response that is none."""
    status, model = response.status_code, body["model"]
    try:
        told: Json = json.loads(data)
    except ValueError:
        told = data.decode(errors="replace")
    message = _message(cast("dict[str, Json]", told).get("error", told) if isinstance(told, dict) else told)
    is_cloud = _is_cloud(response.request.url.host)
    if status == 404 and "model" in message.lower():
        pull = f"Get it with `ollama pull {model}`, or see what the server has with `timestep models list`."
        return ModelNotFoundError(
            f"The Ollama server at {where} does not have the model {model!r}.",
            hint="See what it has with `timestep models list`." if is_cloud else pull,
            status_code=status,
        )
    hint = None
    if status == 404:
        hint = NOT_OLLAMA
    elif status in (401, 403):
        hint = f"Set {KEY_VARIABLE} to a key of {CLOUD_NAME}." if is_cloud else "Check the api_key of the provider."
    return ModelProviderError(
        f"The Ollama server at {where} refused {model!r} with {status}: {message[:500]}",
        hint=hint,
        status_code=status,
        retry_after_seconds=_seconds_of(response.headers.get("retry-after")),
        retryable=status in RETRYABLE_STATUS,
    )


def _message(error: Json) -> str:
    if isinstance(error, dict):
        return str(cast("dict[str, Json]", error).get("message") or error)
    return " ".join(str(error).split())


def _seconds_of(header: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header: a number, or a date."""
    if not header:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        at = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)


def _is_cloud(host: str) -> bool:
    return host == CLOUD_NAME or host.endswith(f".{CLOUD_NAME}")


def _has_key_of_environment(headers: Mapping[str, str]) -> bool:
    key = os.environ.get(KEY_VARIABLE)
    return bool(key) and headers.get("authorization") == f"Bearer {key}"
