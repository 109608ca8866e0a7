"""The final output of a run as JSON, and back.

`runs.output` holds what people read: text, or the JSON of the output type. The snapshot beside it holds the output
whole, where that JSON would not become the same value again.
"""

from __future__ import annotations

import logging
from typing import Any

from agents import AgentOutputSchemaBase
from pydantic import TypeAdapter, ValidationError

from timestep.client.readable import readable
from timestep.durable.values.keeping import STRUCTURE, is_plain, is_same, is_structure, restore, structure_of
from timestep.durable.values.structure import TYPE_MARK, NotKept
from timestep.store.json_text import dump_json

log = logging.getLogger("timestep")

Json = Any
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def dump_output(output: Any) -> Json:
    """Return a final output as JSON for people; what JSON does not know is text."""
    if is_plain(output):
        return output
    try:
        data = _ANY.dump_python(output, mode="json", warnings=False)
        dump_json(data)
    except Exception as error:  # noqa: BLE001 - whatever a user's class raises, it has no JSON of its own
        log.debug("A final output has no JSON of its own: %s", error)
    else:
        return data
    try:
        return readable(structure_of(output, name="output"))
    except NotKept:
        return _text_of(output)


def keep_output(output: Any, output_type: Any) -> Json:
    """Return a final output as JSON of which `load_output` makes an equal value; a text where there is none."""
    data = dump_output(output)
    try:
        if is_same(load_output(data, output_type), output):
            return data
    except Exception as error:  # noqa: BLE001 - a validator of the user's own may raise anything
        log.debug("A final output does not come back from its JSON: %s", error)
    try:
        return structure_of(output, name="output")
    except NotKept as error:
        log.warning("A final output is stored as JSON for people alone: %s.", error)
        return {TYPE_MARK: STRUCTURE, "value": data}  # so that it is not taken for the JSON of the output type


def load_output(data: Json, output_type: Any) -> Any:
    """Return a final output of its JSON, of the agent's output type."""
    if is_structure(data):
        return restore(data)
    if isinstance(output_type, AgentOutputSchemaBase):
        output_type = getattr(output_type, "output_type", None)  # a schema of the caller's own may know none
    if output_type is None or output_type is str or data is None:
        return data
    adapter: TypeAdapter[Any] = TypeAdapter(output_type)
    try:
        return adapter.validate_python(data)
    except ValidationError:
        return adapter.validate_python(data, by_name=True)  # `dump_output` names fields by attribute, not by alias


def _text_of(output: Any) -> str:
    try:
        return str(output)
    except Exception:  # noqa: BLE001 - whatever a user's class raises, it has no text
        return f"<{type(output).__qualname__}>"
