"""A run's context as JSON, and back.

A context is plain JSON, or an instance of the type that is registered with the agent: then its JSON is pydantic's,
where the type makes the same context of it again. Any other one is a tree, see `values/keeping.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from pydantic import TypeAdapter

from timestep.durable.values.keeping import STRUCTURE, is_plain, is_same, is_structure, restore, structure_of
from timestep.durable.values.structure import TYPE_MARK, NotKept, is_object, object_node, object_parts, to_tree
from timestep.errors import InvalidInputError, NotDurableError
from timestep.store.json_text import dump_json

log = logging.getLogger("timestep")

Json = Any


def dump_context(context: object, *, context_type: type | None, hint: str) -> Json:
    """Return the context that a run is given as JSON.

    Raises:
        NotDurableError: it would not come back as it is; the message names the part of it.
    """
    try:
        if is_structure(context):  # a dict of the caller's own that looks like a tree
            return structure_of(context, name="context")
        dump_json(context)
        return context
    except InvalidInputError:
        pass
    try:
        return _exact(context, context_type)
    except NotKept as error:
        raise NotDurableError(
            f"The context of type {type(context).__qualname__} cannot be stored: {error}.", hint=hint
        ) from error


def dump_current_context(context: object, *, context_type: type | None) -> Json:
    """Return the context of a run that has gone on as JSON; a part that would not come back is left out and logged."""
    try:
        return _exact(context, context_type)
    except NotKept as error:
        log.error("The context of a run was not stored whole: %s.", error)
    if is_object(context):
        lost = {name for group in object_parts(context).values() for name in group if not _has_form(group[name])}
        return {TYPE_MARK: STRUCTURE, "value": object_node(context, ((), "context"), without=lost)}
    if isinstance(context, Mapping):
        kept = {key: value for key, value in cast("Mapping[Any, Any]", context).items() if _has_form(value)}
        return _exact(kept, context_type)
    return None


def load_context(data: Json, context_type: type | None) -> Any:
    """Return the context of its JSON: plain JSON, or an instance of the registered type.

    Raises:
        JournalFormatError: it is of a type that this process does not know.
        ValidationError: it is JSON that the registered type refuses.
    """
    if is_structure(data):
        return restore(data)
    if context_type is None or data is None:
        return data
    return TypeAdapter(context_type).validate_python(data)


def is_typed(context: object) -> bool:
    """Whether a context is an instance of a class of the caller's own."""
    return is_object(context)


def _exact(context: Any, context_type: type | None) -> Json:
    """Return JSON of which `load_context` makes an equal context.

    Raises:
        NotKept: there is none.
    """
    if is_plain(context):
        return structure_of(context, name="context") if is_structure(context) else context
    if context_type is not None and isinstance(context, context_type) and is_object(context):
        try:
            data = TypeAdapter(type(context)).dump_python(context, mode="json", warnings=False)
            if is_plain(data) and not is_structure(data) and is_same(load_context(data, context_type), context):
                return data
        except Exception as error:  # noqa: BLE001 - whatever it is, pydantic's JSON is not for this context
            log.debug("The context has no JSON of its own: %s", error)
    return structure_of(context, name="context")


def _has_form(value: Any) -> bool:
    try:
        to_tree(value, ((), ""))
    except Exception:  # noqa: BLE001 - whatever a user's class raises, it has no form
        return False
    return True
