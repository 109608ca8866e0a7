"""Names of classes that another process finds again: `shop.orders:Order`.

The classes of the started script have the module `__main__`, which is another one in each process. Their name is
`__main__/app:Order`, with the name by which a worker imports the script. Nothing is imported by a name from the
database: a class is looked up among the modules that are loaded already.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

MAIN = "__main__"


def name_of_class(kind: type[Any]) -> str:
    """Return the name of a class, whether or not it can be found by it."""
    module = f"{MAIN}/{importable_name()}" if kind.__module__ == MAIN else kind.__module__
    return f"{module}:{kind.__qualname__}"


def find_class(name: str) -> type[Any] | None:
    """Return the class of a name among the loaded modules; None when there is none."""
    module_name, _, qualified_name = name.partition(":")
    return find_in_module(module_name, qualified_name)


def find_in_module(module_name: str, qualified_name: str) -> type[Any] | None:
    """Return the class of a qualified name in a module, also in the started script when the module is that one."""
    for module in _modules(module_name):
        found: Any = module
        for part in qualified_name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found
    return None


def importable_name() -> str:
    """Return the name by which another process imports the script that this one was started with."""
    main = sys.modules.get(MAIN)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name
    file = getattr(main, "__file__", None)
    if file is None:
        return MAIN
    path = Path(file).resolve()
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names)


def _modules(name: str) -> Iterator[ModuleType]:
    """Yield the loaded modules that a stored name may mean, the likeliest first."""
    main, own_name = sys.modules.get(MAIN), importable_name()
    was_main, name = name.startswith(f"{MAIN}/"), name.removeprefix(f"{MAIN}/")
    names = [name, *(_names_of_a_file(name) if was_main else [])]
    is_main = name in (own_name, *_names_of_a_file(own_name))
    if main is not None and was_main and is_main:
        yield main
    yield from (sys.modules[each] for each in names if each in sys.modules)
    if main is not None and is_main:
        yield main


def _names_of_a_file(name: str) -> list[str]:
    """Return the other names under which `timestep worker FILE` may import the file of a module."""
    stem = name.rpartition(".")[2]
    return [stem, f"{stem}_module"]
