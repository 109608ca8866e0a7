"""Input items of the Responses API as messages of Ollama: a pure function that takes every history.

What Ollama has no word for stays in its place as text in brackets, and is named in `Converted.lost`: a hosted tool
call, an image by URL, a file. What only its writer can read, the encrypted text of a reasoning item, is left out.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from timestep.words import CALL_RESULTS, CUSTOM_TOOL_CALL, FUNCTION_CALL, LOCAL_CALLS

Json = Any
Message = dict[str, Json]

_SYSTEM_ROLES = ("system", "developer")
_TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_READABLE_TYPES = ("text/", "application/json", "application/xml")


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The messages, and the kinds of content that they tell of in words only."""

    messages: list[Message]
    lost: frozenset[str]


@dataclass(kw_only=True)
class _Conversation:
    """The messages so far. `answer` is the assistant's message that further parts of its turn are added to.

    `calls` has number and name of the last call with an id: providers use an id again in a later turn.
    """

    messages: list[Message] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    answer: Message | None = None
    calls: dict[str, tuple[float, str]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def add(self, message: Message) -> None:
        self.answer = None
        self.messages.append(message)

    def number_of_result(self, place: int) -> float:
        """Return the number of the call whose result is at this place of the messages, -1 when none is there."""
        message = self.messages[place]
        if message["role"] != "tool":
            return -1
        return self.calls.get(message["tool_call_id"], (math.inf, ""))[0]

    def answering(self, *, new: bool = False) -> Message:
        """Return the assistant's message of this turn, a new one when asked for or when there is none."""
        if new or self.answer is None:
            self.answer = {"role": "assistant", "content": ""}
            self.messages.append(self.answer)
        return self.answer


def messages_of(items: str | Iterable[Any], system_instructions: str | None = None) -> Converted:
    """Return a history as messages: in order, with text, calls and thinking of one turn in one message.

    Results that follow each other are put into the order of their calls, because Ollama matches them by order.
    """
    talk = _Conversation()
    if system_instructions:
        talk.add({"role": "system", "content": system_instructions})
    if isinstance(items, str):
        talk.add({"role": "user", "content": items})
        items = ()
    for item in items:
        _add(talk, _fields(item))
    return Converted(messages=talk.messages, lost=frozenset(talk.lost))


def image_of(url: str) -> str | None:
    """Return the base64 data of an image's data URL, None for another URL."""
    data = _data_of(url)
    return None if data is None else base64.b64encode(data[1]).decode()


def _add(talk: _Conversation, item: Mapping[str, Json]) -> None:
    kind = item.get("type") or ("message" if "role" in item else "")
    if kind == "message":
        _add_message(talk, item)
    elif kind == "reasoning":
        _add_reasoning(talk, item)
    elif kind in LOCAL_CALLS:
        _add_call(talk, item, str(kind))
    elif kind in CALL_RESULTS:
        _add_result(talk, item)
    else:
        talk.lost.add(str(kind or "unknown item"))
        _add_text(talk, _noted(item))


def _add_message(talk: _Conversation, item: Mapping[str, Json]) -> None:
    role = item.get("role")
    content, images = _content(talk, item.get("content"))
    if role == "assistant":
        _add_text(talk, content, images)
        return
    message: Message = {"role": "system" if role in _SYSTEM_ROLES else "user", "content": content}
    talk.add(message | {"images": images} if images else message)


def _add_text(talk: _Conversation, content: str, images: Sequence[str] = ()) -> None:
    """Add what the assistant said; after calls that have no results yet it belongs to their turn."""
    answer = talk.answer
    message = talk.answering(new=answer is not None and bool(answer["content"] or answer.get("images")))
    message["content"] = content
    if images:
        message["images"] = [*images]


def _add_reasoning(talk: _Conversation, item: Mapping[str, Json]) -> None:
    content, _ = _content(talk, item.get("content"))
    text = content or _content(talk, item.get("summary"))[0]
    if not text:
        talk.lost.update(("encrypted reasoning",) if item.get("encrypted_content") else ())
        return
    answer = talk.answer
    is_begun = answer is not None and bool(answer["content"] or "thinking" in answer or "tool_calls" in answer)
    talk.answering(new=is_begun)["thinking"] = text


def _add_call(talk: _Conversation, item: Mapping[str, Json], kind: str) -> None:
    name = str(item.get("name") or kind)
    call_id = str(item.get("call_id") or item.get("id") or "")
    talk.calls[call_id] = next(talk.numbers), name
    function = {"name": name, "arguments": _arguments(item, kind)}
    call = {"id": call_id, "type": "function", "function": function}
    talk.answering().setdefault("tool_calls", []).append(call)


def _arguments(item: Mapping[str, Json], kind: str) -> dict[str, Json]:
    """Return the arguments as the object that Ollama takes, whatever the model wrote."""
    if kind == FUNCTION_CALL:
        given = item.get("arguments")
        if isinstance(given, str):
            try:
                given = json.loads(given or "{}")
            except ValueError:
                return {"arguments": given}
        return cast("dict[str, Json]", given) if isinstance(given, dict) else {"arguments": given}
    if kind == CUSTOM_TOOL_CALL:
        return {"input": item.get("input")}
    found = {key: item[key] for key in ("action", "actions", "operation") if item.get(key) is not None}
    return cast("dict[str, Json]", _plain(found))


def _add_result(talk: _Conversation, item: Mapping[str, Json]) -> None:
    call_id = str(item.get("call_id") or item.get("id") or "")
    output = item.get("output")
    if isinstance(output, Mapping) and cast("Mapping[str, Json]", output).get("type") == "computer_screenshot":
        output = [{**cast("Mapping[str, Json]", output), "type": "input_image"}]
    content, images = _content(talk, output)
    number, name = talk.calls.get(call_id, (math.inf, str(item.get("name") or item.get("type"))))
    message: Message = {"role": "tool", "content": content, "tool_name": name, "tool_call_id": call_id}
    talk.add(message | {"images": images} if images else message)
    place = len(talk.messages) - 1
    while place and talk.number_of_result(place - 1) > number:
        place -= 1
    talk.messages.insert(place, talk.messages.pop())


def _content(talk: _Conversation, content: Json) -> tuple[str, list[str]]:
    """Return the text of a content and its images."""
    if isinstance(content, str):
        return content, []
    if content is None:
        return "", []
    if not isinstance(content, list):
        return _dumped(content), []
    texts: list[str] = []
    images: list[str] = []
    for part in map(_fields, content):
        kind = part.get("type")
        if kind in _TEXT_PARTS:
            texts.append(str(part.get("text") or ""))
        elif kind == "refusal":
            texts.append(str(part.get("refusal") or ""))
        elif kind in ("input_image", "image_url", "image") and (image := _image(part)):
            images.append(image)
        elif kind in ("input_file", "file") and (text := _file_text(part)) is not None:
            texts.append(text)
        else:
            talk.lost.add(str(kind or "unknown content"))
            texts.append(_noted(part))
    return "\n".join(texts), images


def _image(part: Mapping[str, Json]) -> str | None:
    url = part.get("image_url")
    if isinstance(url, Mapping):
        url = cast("Mapping[str, Json]", url).get("url")
    return image_of(url) if isinstance(url, str) else None


def _file_text(part: Mapping[str, Json]) -> str | None:
    """Return a file that is readable as text, with its name before it."""
    given = part.get("file") if isinstance(part.get("file"), Mapping) else part
    fields = cast("Mapping[str, Json]", given)
    data = _data_of(str(fields.get("file_data") or ""))
    if data is None or not data[0].startswith(_READABLE_TYPES):
        return None
    try:
        text = data[1].decode()
    except UnicodeDecodeError:
        return None
    return f"{fields['filename']}:\n{text}" if fields.get("filename") else text


def _data_of(url: str) -> tuple[str, bytes] | None:
    """Return the media type and the bytes of a data URL."""
    head, comma, data = url.partition(",")
    if not comma or not head.lower().startswith("data:"):
        return None
    media_type, *options = head[len("data:") :].split(";")
    try:
        raw = unquote_to_bytes(data)
        return media_type.lower(), base64.b64decode(raw) if "base64" in options else raw
    except binascii.Error:
        return None


def _noted(item: Mapping[str, Json]) -> str:
    """Return in words what Ollama has no word for; long data is cut, a model can do nothing with it."""
    told = {key: value for key, value in item.items() if key not in ("type", "status", "encrypted_content", "id")}
    for part in ("image_url", "file_data", "data", "result"):
        if isinstance(told.get(part), str) and len(told[part]) > 500:
            told[part] = f"{told[part][:40]}..."
    return f"[{item.get('type') or 'item'}: {_dumped(told)}]"


def _fields(item: Any) -> Mapping[str, Json]:
    if isinstance(item, Mapping):
        return cast("Mapping[str, Json]", item)
    return item.model_dump(exclude_unset=True) if hasattr(item, "model_dump") else {"type": "text", "text": str(item)}


def _plain(value: Json) -> Json:
    return json.loads(_dumped(value))


def _dumped(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, default=_jsonable)


def _jsonable(value: Any) -> Json:
    return value.model_dump(mode="json", exclude_unset=True) if hasattr(value, "model_dump") else str(value)
