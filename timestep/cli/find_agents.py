"""Find agents in the modules that a command names: `my_app.agents`, `my_app/agents.py`, `my_app.agents:planner`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from timestep.errors import InvalidInputError

if TYPE_CHECKING:
    from agents import Agent

_REFERENCE = re.compile(r"(?P<module>.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d][\w.]*)", re.DOTALL)


def is_reference(text: str) -> bool:
    """Return whether `text` names an agent of a module, `module:name`, and not a registered agent by its own name."""
    return _REFERENCE.fullmatch(text) is not None


def load_agent(reference: str) -> tuple[Agent[Any], ModuleType]:
    """Return the agent of a reference, such as `my_app.agents:planner` or `agents.py:planner`, and its module.

    Raises:
        InvalidInputError: there is no such module, it cannot be imported, or the name is no agent.
    """
    from agents import Agent

    found = _REFERENCE.fullmatch(reference)
    assert found is not None
    module = load_module(found["module"])
    value: Any = module
    try:
        for part in found["name"].split("."):
            value = getattr(value, part)
    except AttributeError:
        raise InvalidInputError(
            f"There is no {found['name']!r} in the module {found['module']!r}.", hint=_known(module)
        ) from None
    if not isinstance(value, Agent):
        raise InvalidInputError(f"{reference!r} is {type(value).__name__}, not an agents.Agent.", hint=_known(module))
    return value, module


def load_module(name: str) -> ModuleType:
    """Import a module by its name, or by the path of its file; the current folder is on the Python path.

    Raises:
        InvalidInputError: there is no such module, or it cannot be imported.
    """
    # The SDK first: a file `agents.py` in the current folder must not take its place.
    importlib.import_module("agents")

    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    path = Path(name)
    is_file = name.endswith(".py") or os.sep in name
    if is_file and not path.is_file():
        hint = "Name a Python file, or a module such as my_app.agents."
        raise InvalidInputError(f"There is no file {name!r}.", hint=hint)
    try:
        return _import_file(path) if is_file else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not is_file and error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise InvalidInputError(
                f"There is no module {name!r} in {folder} or on the Python path.",
                hint="Name a module such as my_app.agents, or a file such as my_app/agents.py.",
            ) from None
        raise _failed(name, error) from error
    except Exception as error:
        raise _failed(name, error) from error


def register_modules(names: Sequence[str]) -> None:
    """Import modules and register every agent at their top levels; one that registers agents itself is left alone.

    Raises:
        InvalidInputError: a module cannot be imported, or has no agent.
        AgentAlreadyRegisteredError: two agents of different definitions have one name.
    """
    from timestep.durable.process.registered_agents import register_agents, registered_names

    for name in names:
        before = registered_names()
        module = load_module(name)
        if registered_names() != before:
            continue
        found = agents_of(module)
        if not found:
            hint = "Put an agents.Agent at its top level, or call timestep.register_agents(...) in it."
            if module.__name__ == "agents":
                hint = "This is the Agents SDK; name a file of yours by its path, such as ./agents.py."
            raise InvalidInputError(f"The module {name!r} ({module.__file__}) has no agent.", hint=hint)
        register_agents(*found.values())


def agents_of(module: ModuleType) -> dict[str, Agent[Any]]:
    """Return the agents at the top level of a module by the names of their variables, each once."""
    from agents import Agent

    found: dict[str, Agent[Any]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Agent) and all(value is not other for other in found.values()):
            found[name] = value
    return found


def _import_file(path: Path) -> ModuleType:
    name = path.stem
    folder = path.resolve().parent
    packages: list[str] = []
    while (folder / "__init__.py").is_file():  # a module of a package is imported as such
        packages.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if packages:
        return importlib.import_module(".".join([*packages, *([] if name == "__init__" else [name])]))
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"{name}_module"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _known(module: ModuleType) -> str:
    found = agents_of(module)
    if not found:
        return "It has no agent at its top level."
    return "It has the agents " + ", ".join(f"{name} ({agent.name!r})" for name, agent in found.items()) + "."


def _failed(name: str, error: Exception) -> InvalidInputError:
    message = " ".join(str(error).split())
    return InvalidInputError(
        f"The module {name!r} cannot be imported: {type(error).__name__}: {message}",
        hint="Add --debug to see where it happened.",
    )
