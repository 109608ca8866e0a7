"""JSON text as Postgres stores it: every Python string survives, nothing that is not JSON passes."""

from __future__ import annotations

import json
import re
from typing import Any

from timestep.errors import InvalidInputError

_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def dump_json(value: Any) -> str:
    """Return `value` as JSON text that a `json` column stores.

    Lone surrogates, which UTF-8 cannot carry, make the whole text ASCII with escapes.

    Raises:
        InvalidInputError: `value` holds NaN, an infinity or something that JSON has no form for.
    """
    try:
        text = _encode(value)
        if text.isascii() or not _SURROGATE.search(text):
            return text
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"The value cannot be stored as JSON: {error}.",
            hint="Store only text, finite numbers, booleans, None, lists and dicts with text keys.",
        ) from error


def storable_text(text: str) -> str:
    """Return JSON-like `text` with NUL and lone surrogates as JSON escapes, which a `text` column stores."""
    return _UNSTORABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
