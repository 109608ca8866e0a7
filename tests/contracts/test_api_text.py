"""`api.txt` beside this file is the public interface with its types: names, signatures, and what classes have.

After a wanted change write it again, and say so in CHANGELOG.md:

    python tests/contracts/test_api_text.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timestep

API = Path(__file__).with_name("api.txt")


def test_the_public_interface_is_the_committed_one() -> None:
    assert api_text() == API.read_text(encoding="utf-8"), "see the first lines of this file"


def api_text() -> str:
    """Return each public name with its signature, and the public members of the classes."""
    return "".join(f"{line}\n" for name in sorted(timestep.__all__) for line in describe(name, getattr(timestep, name)))


def describe(name: str, value: Any) -> Iterator[str]:
    if not callable(value):
        yield f"{name}: {type(value).__name__}"
        return
    yield f"{asynchronous(value)}{name}{signature(value)}"
    if isinstance(value, type):
        homes = [home for home in value.__mro__ if home.__module__.startswith("timestep.")]
        members = {member: found for home in reversed(homes) for member, found in vars(home).items()}
        for member, found in sorted(members.items()):
            if member.startswith("_") and member != "__await__":
                continue
            if isinstance(found, property):
                yield f"{name}.{member}: property"
            elif isinstance(found, (classmethod, staticmethod)) or inspect.isfunction(found):
                function = getattr(value, member)
                yield f"{asynchronous(function)}{name}.{member}{signature(function)}"


def asynchronous(value: Any) -> str:
    return "async " if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value) else ""


class Bare(str):
    """Text that is printed without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(value: Any) -> str:
    """Return a signature in which annotations stand unquoted and functions that are defaults by name."""
    given = inspect.signature(value)
    parameters = [
        each.replace(
            annotation=unquoted(each.annotation),
            default=Bare(each.default.__name__) if inspect.isfunction(each.default) else each.default,
        )
        for each in given.parameters.values()
    ]
    return str(given.replace(parameters=parameters, return_annotation=unquoted(given.return_annotation)))


def unquoted(annotation: Any) -> Any:
    return Bare(annotation) if isinstance(annotation, str) else annotation


if __name__ == "__main__":
    API.write_text(api_text(), encoding="utf-8")
