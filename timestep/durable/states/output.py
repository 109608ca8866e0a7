"""The final output of a run as JSON, and back as a value of the agent's output type."""

from __future__ import annotations

from typing import Any

from agents import AgentOutputSchemaBase
from pydantic import TypeAdapter

from timestep.errors import InvalidInputError, ToolResultError
from timestep.store.json_text import dump_json

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def dump_output(output: Any) -> Any:
    """Return a final output as JSON.

    Raises:
        ToolResultError: it is not JSON-able.
    """
    try:
        data = output if isinstance(output, str) else _ANY.dump_python(output, mode="json")
        dump_json(data)
    except (InvalidInputError, ValueError, TypeError) as error:
        raise ToolResultError(f"The final output, a {type(output).__name__}, cannot be stored: {error}.") from error
    return data


def load_output(data: Any, output_type: Any) -> Any:
    """Return a final output of its JSON, of the agent's output type."""
    if isinstance(output_type, AgentOutputSchemaBase):
        output_type = getattr(output_type, "output_type", None)  # a schema of the caller's own may know none
    if output_type is None or output_type is str or data is None:
        return data
    return TypeAdapter(output_type).validate_python(data)
