"""The minds of the scenario as models of Ollama, streamed from a server that nobody here wrote."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import side_log
from agents import Model
from scenario import logged

from timestep.models.ollama_model import OllamaModel
from timestep.models.ollama_provider import own_client


class OllamaMind(OllamaModel):
    """A model that tells of its calls, and can be stopped when the first piece of its answer is there."""

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with logged("model", self.model, None) as (run, point):
            is_begun = False
            async for event in super().stream_response(*args, **kwargs):
                yield event
                if not is_begun and event.type != "response.created":
                    is_begun = True
                    await side_log.stop_at(run, point)


def minds_at(url: str) -> Callable[[str], Model]:
    """Return what makes the mind of an agent at a server."""
    return functools.partial(_mind, url)


def _mind(url: str, name: str) -> Model:
    return OllamaMind.of_provider(name, own_client(url, None))
